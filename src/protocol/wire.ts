// Kafka's primitive types over one Buffer (Reader) or a growing one (Writer). Every length and count is compared with
// the bytes that remain before anything is allocated, so a hostile frame costs no more than its own size.
// The compiled codecs of compile.ts call these; malformed bytes always surface as a WireError.

export class WireError extends Error {
  override readonly name = 'WireError';
}

/** How many array elements one request may hold; each costs far more memory than the byte or two it may take. */
export const maxRequestElements = 1 << 20;

const zeroUuid = '00000000-0000-0000-0000-000000000000';

export class Reader {
  readonly bytes: Buffer;
  at: number;
  readonly end: number;
  private readonly view: DataView;
  private elements: number;

  constructor(bytes: Buffer, at = 0, maxElements = maxRequestElements) {
    this.bytes = bytes;
    this.at = at;
    this.end = bytes.length;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.elements = maxElements;
  }

  get remaining(): number {
    return this.end - this.at;
  }

  /** Moves past `count` bytes and returns where they began. */
  private take(count: number): number {
    const at = this.at;
    if (count > this.end - at) throw new WireError(`${count} bytes expected at ${at}, ${this.end - at} remain`);
    this.at = at + count;
    return at;
  }

  int8(): number {
    return this.view.getInt8(this.take(1));
  }
  boolean(): boolean {
    return this.view.getInt8(this.take(1)) !== 0;
  }
  int16(): number {
    return this.view.getInt16(this.take(2));
  }
  uint16(): number {
    return this.view.getUint16(this.take(2));
  }
  int32(): number {
    return this.view.getInt32(this.take(4));
  }
  uint32(): number {
    return this.view.getUint32(this.take(4));
  }
  int64(): bigint {
    return this.view.getBigInt64(this.take(8));
  }
  float64(): number {
    return this.view.getFloat64(this.take(8));
  }

  uvarint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.view.getUint8(this.take(1));
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (shift === 28 && byte > 0x0f) break;
        return value >>> 0;
      }
    }
    throw new WireError(`varint longer than 32 bits before ${this.at}`);
  }

  uuid(): string {
    const at = this.take(16);
    const hex = this.bytes.toString('hex', at, at + 16);
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }

  private text(length: number): string {
    const at = this.take(length);
    return length === 0 ? '' : this.bytes.toString('utf8', at, at + length);
  }
  private slice(length: number): Buffer {
    const at = this.take(length);
    return this.bytes.subarray(at, at + length);
  }
  private null(what: string): never {
    throw new WireError(`${what} before ${this.at} may not be null`);
  }

  nullableString(): string | null {
    const length = this.int16();
    return length < 0 ? null : this.text(length);
  }
  string(): string {
    return this.nullableString() ?? this.null('string');
  }
  compactNullableString(): string | null {
    const length = this.uvarint();
    if (length > 0x8000) throw new WireError(`string of ${length - 1} bytes before ${this.at}`);
    return length === 0 ? null : this.text(length - 1);
  }
  compactString(): string {
    return this.compactNullableString() ?? this.null('string');
  }

  nullableBytes(): Buffer | null {
    const length = this.int32();
    return length < 0 ? null : this.slice(length);
  }
  nonNullBytes(): Buffer {
    return this.nullableBytes() ?? this.null('bytes');
  }
  compactNullableBytes(): Buffer | null {
    const length = this.uvarint();
    return length === 0 ? null : this.slice(length - 1);
  }
  compactBytes(): Buffer {
    return this.compactNullableBytes() ?? this.null('bytes');
  }

  /** The number of elements, or -1 for null; `elementBytes` is the least that one element takes. */
  nullableCount(elementBytes: number): number {
    const count = this.int32();
    return count < 0 ? -1 : this.checkCount(count, elementBytes);
  }
  count(elementBytes: number): number {
    const count = this.int32();
    return count < 0 ? this.null('array') : this.checkCount(count, elementBytes);
  }
  compactNullableCount(elementBytes: number): number {
    const count = this.uvarint();
    return count === 0 ? -1 : this.checkCount(count - 1, elementBytes);
  }
  compactCount(elementBytes: number): number {
    const count = this.uvarint();
    return count === 0 ? this.null('array') : this.checkCount(count - 1, elementBytes);
  }
  private checkCount(count: number, elementBytes: number): number {
    if (count * elementBytes > this.end - this.at) {
      throw new WireError(`${count} elements announced before ${this.at}, ${this.end - this.at} bytes remain`);
    }
    this.elements -= count;
    if (this.elements < 0) throw new WireError('too many array elements in one message');
    return count;
  }

  /** Where a tagged field of `size` bytes ends. */
  tagEnd(size: number): number {
    if (size > this.end - this.at) throw new WireError(`tagged field of ${size} bytes at ${this.at}`);
    return this.at + size;
  }
  endTag(end: number): void {
    if (this.at !== end) throw new WireError(`tagged field ends at ${this.at}, announced ${end}`);
  }
  skipTags(): void {
    for (let count = this.uvarint(); count > 0; count--) {
      this.uvarint();
      this.at = this.tagEnd(this.uvarint());
    }
  }
}

/**
 * Values longer than this are handed on by reference, as chunks of their own. Up to here a copy costs less than a
 * gathering write, and the whole message comes from Node's pool of small buffers.
 */
const referenceBytes = 3 * 1024;
const scratchBytes = 64 * 1024;
const keptScratchBytes = 1024 * 1024;

/** Writes into a scratch buffer that is reused for every message; `finish` copies out exactly what was written. */
export class Writer {
  private bytes = Buffer.allocUnsafeSlow(scratchBytes);
  private view = new DataView(this.bytes.buffer);
  private at = 0;
  private tagDepth = 0;
  private referenced: { at: number; bytes: Buffer }[] = [];
  private referencedBytes = 0;

  reset(): this {
    if (this.bytes.length > keptScratchBytes) this.resize(scratchBytes);
    this.at = 0;
    this.tagDepth = 0;
    this.referencedBytes = 0;
    if (this.referenced.length > 0) this.referenced = [];
    return this;
  }

  /** Bytes written so far, those by reference included. */
  get length(): number {
    return this.at + this.referencedBytes;
  }

  finish(): Buffer[] {
    const own = Buffer.allocUnsafe(this.at);
    this.bytes.copy(own, 0, 0, this.at);
    if (this.referenced.length === 0) return [own];
    const chunks: Buffer[] = [];
    let from = 0;
    for (const { at, bytes } of this.referenced) {
      if (at > from) chunks.push(own.subarray(from, at));
      chunks.push(bytes);
      from = at;
    }
    if (from < own.length) chunks.push(own.subarray(from));
    this.reset();
    return chunks;
  }

  private resize(size: number): void {
    const next = Buffer.allocUnsafeSlow(size);
    this.bytes.copy(next, 0, 0, this.at);
    this.bytes = next;
    this.view = new DataView(next.buffer);
  }
  /** Moves past `count` bytes and returns where they began. */
  private take(count: number): number {
    const at = this.at;
    if (at + count > this.bytes.length) this.resize(Math.max(this.bytes.length * 2, at + count));
    this.at = at + count;
    return at;
  }

  int8(value: number): void {
    const at = this.take(1);
    this.view.setInt8(at, value);
  }
  boolean(value: boolean): void {
    this.int8(value ? 1 : 0);
  }
  int16(value: number): void {
    const at = this.take(2);
    this.view.setInt16(at, value);
  }
  uint16(value: number): void {
    this.int16(value);
  }
  int32(value: number): void {
    const at = this.take(4);
    this.view.setInt32(at, value);
  }
  uint32(value: number): void {
    this.int32(value);
  }
  int64(value: bigint): void {
    const at = this.take(8);
    this.view.setBigInt64(at, value);
  }
  float64(value: number): void {
    const at = this.take(8);
    this.view.setFloat64(at, value);
  }

  /** Overwrites four bytes written before. */
  patchInt32(at: number, value: number): void {
    this.view.setInt32(at, value);
  }

  uvarint(value: number): void {
    let rest = value;
    while (rest > 0x7f) {
      this.int8((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.int8(rest);
  }

  uuid(value: string): void {
    const at = this.take(16);
    if (value === zeroUuid) {
      this.bytes.fill(0, at, at + 16);
      return;
    }
    const written = this.bytes.write(value.replaceAll('-', ''), at, 16, 'hex');
    if (written !== 16) throw new TypeError(`not a uuid: ${value}`);
  }

  private text(value: string, byteLength: number): void {
    const at = this.take(byteLength);
    this.bytes.write(value, at, 'utf8');
  }
  string(value: string): void {
    const length = Buffer.byteLength(value);
    if (length > 0x7fff) throw new RangeError(`string of ${length} bytes`);
    this.int16(length);
    this.text(value, length);
  }
  nullableString(value: string | null): void {
    if (value === null) this.int16(-1);
    else this.string(value);
  }
  compactString(value: string): void {
    const length = Buffer.byteLength(value);
    if (length > 0x7fff) throw new RangeError(`string of ${length} bytes`);
    this.uvarint(length + 1);
    this.text(value, length);
  }
  compactNullableString(value: string | null): void {
    if (value === null) this.uvarint(0);
    else this.compactString(value);
  }

  private raw(value: Buffer): void {
    if (value.length > referenceBytes && this.tagDepth === 0) {
      this.referenced.push({ at: this.at, bytes: value });
      this.referencedBytes += value.length;
    } else {
      const at = this.take(value.length);
      value.copy(this.bytes, at);
    }
  }
  nonNullBytes(value: Buffer): void {
    this.int32(value.length);
    this.raw(value);
  }
  nullableBytes(value: Buffer | null): void {
    if (value === null) this.int32(-1);
    else this.nonNullBytes(value);
  }
  compactBytes(value: Buffer): void {
    this.uvarint(value.length + 1);
    this.raw(value);
  }
  compactNullableBytes(value: Buffer | null): void {
    if (value === null) this.uvarint(0);
    else this.compactBytes(value);
  }

  private parts(value: Buffer | readonly Buffer[]): void {
    if (Buffer.isBuffer(value)) this.raw(value);
    else for (const part of value) this.raw(part);
  }
  records(value: Buffer | readonly Buffer[]): void {
    this.int32(totalLength(value));
    this.parts(value);
  }
  nullableRecords(value: Buffer | readonly Buffer[] | null): void {
    if (value === null) this.int32(-1);
    else this.records(value);
  }
  compactRecords(value: Buffer | readonly Buffer[]): void {
    this.uvarint(totalLength(value) + 1);
    this.parts(value);
  }
  compactNullableRecords(value: Buffer | readonly Buffer[] | null): void {
    if (value === null) this.uvarint(0);
    else this.compactRecords(value);
  }

  /** The size of a tagged field is known only once it is written, so `endTag` moves it up behind its size. */
  beginTag(tag: number): number {
    this.uvarint(tag);
    this.tagDepth++;
    return this.at;
  }
  endTag(start: number): void {
    this.tagDepth--;
    const size = this.at - start;
    let prefix = 1;
    for (let rest = size >>> 7; rest > 0; rest >>>= 7) prefix++;
    this.take(prefix);
    this.bytes.copyWithin(start + prefix, start, start + size);
    this.at = start;
    this.uvarint(size);
    this.at = start + prefix + size;
  }
}

function totalLength(parts: Buffer | readonly Buffer[]): number {
  if (Buffer.isBuffer(parts)) return parts.length;
  let length = 0;
  for (const part of parts) length += part.length;
  return length;
}
