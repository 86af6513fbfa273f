// Walks the records inside a batch, field by field. What is cut short or contradicts itself is refused.
import type { RecordHeader } from './records.ts';
import { WireError } from './wire.ts';

/** The least a record takes: length, attributes, two deltas, key, value and header count of a byte each. */
export const leastRecordBytes = 7;

export class RecordCursor {
  readonly bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  #need(count: number): void {
    if (count > this.bytes.length - this.at) throw new WireError(`record cut short at ${this.at}`);
  }

  varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      this.#need(1);
      const byte = this.bytes[this.at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    }
    throw new WireError(`varint longer than 32 bits before ${this.at}`);
  }

  varlong(): bigint {
    let low = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      this.#need(1);
      const byte = this.bytes[this.at++]!;
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt((low >>> 1) ^ -(low & 1));
    }
    let value = BigInt(low);
    for (let shift = 28n; shift < 70n; shift += 7n) {
      this.#need(1);
      const byte = this.bytes[this.at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, (value >> 1n) ^ -(value & 1n));
    }
    throw new WireError(`varint longer than 64 bits before ${this.at}`);
  }

  /** Passes over what `varlong` would read. */
  skipVarlong(): void {
    for (let bytes = 1; bytes <= 10; bytes++) {
      this.#need(1);
      if (this.bytes[this.at++]! < 0x80) return;
    }
    throw new WireError(`varint longer than 64 bits before ${this.at}`);
  }

  /** Reads a record's length and attributes, which mean nothing yet, and returns where the record ends. */
  begin(): number {
    const length = this.varint();
    if (length < leastRecordBytes - 1) throw new WireError(`record of ${length} bytes before ${this.at}`);
    this.#need(length);
    const end = this.at + length;
    this.at++;
    return end;
  }

  finish(end: number): void {
    if (this.at !== end) throw new WireError(`record ends at ${this.at}, announced ${end}`);
  }

  blob(): Buffer | null {
    const start = this.skipBlob();
    return start < 0 ? null : this.bytes.subarray(start, this.at);
  }

  /** Passes over a blob. Returns where it begins; -1 for null. */
  skipBlob(): number {
    const length = this.varint();
    if (length < 0) return -1;
    this.#need(length);
    const start = this.at;
    this.at += length;
    return start;
  }

  #headerCount(): number {
    const count = this.varint();
    if (count < 0) throw new WireError(`${count} record headers before ${this.at}`);
    this.#need(count * 2);
    return count;
  }

  headers(): RecordHeader[] {
    const headers: RecordHeader[] = [];
    for (let count = this.#headerCount(); count > 0; count--) {
      const key = this.blob();
      if (key === null) throw new WireError(`record header without a key before ${this.at}`);
      headers.push({ key: key.toString(), value: this.blob() });
    }
    return headers;
  }

  /** Passes over what `headers` would read. */
  skipHeaders(): void {
    for (let count = this.#headerCount(); count > 0; count--) {
      if (this.skipBlob() < 0) throw new WireError(`record header without a key before ${this.at}`);
      this.skipBlob();
    }
  }
}
