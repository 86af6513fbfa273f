// The records inside a batch of format v2: varints, lengths, headers in order with duplicates and nulls
// (Kafka's documentation, "Record"). Whole batches are built here; reading takes an uncompressed records section,
// which compression.ts makes of any other.
import {
  baseOffset,
  baseTimestamp,
  headerBytes,
  isLogAppendTime,
  maxTimestamp,
  recordCount,
  writeHeader,
} from './record-batch.ts';
import { varintBytes, varlongBytes, writeVarint, writeVarlong } from './varint.ts';
import { WireError } from './wire.ts';

export interface RecordHeader {
  readonly key: string;
  readonly value: Buffer | null;
}

export interface LogRecord {
  readonly offset: bigint;
  readonly timestamp: bigint;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly RecordHeader[];
}

export interface NewRecord {
  /** Milliseconds since the epoch. */
  readonly timestamp: bigint;
  readonly key?: Buffer | null;
  readonly value?: Buffer | null;
  readonly headers?: readonly RecordHeader[];
}

export interface NewBatch {
  /** At least one; their offsets follow one another. */
  readonly records: readonly NewRecord[];
  readonly baseOffset?: bigint;
  readonly leaderEpoch?: number;
  readonly producerId?: bigint;
  readonly producerEpoch?: number;
  readonly baseSequence?: number;
  readonly isTransactional?: boolean;
  readonly isControl?: boolean;
}

/** The least a record takes: length, attributes, two deltas, key, value and header count of a byte each. */
const leastRecordBytes = 7;

/** An uncompressed batch. */
export function buildBatch(batch: NewBatch): Buffer {
  const { records } = batch;
  const first = records[0];
  if (first === undefined) throw new RangeError('a batch needs a record');
  const prepared: Prepared[] = [];
  let length = headerBytes;
  let newest = first.timestamp;
  for (let i = 0; i < records.length; i++) {
    const record = prepare(records[i]!, i, first.timestamp);
    prepared.push(record);
    length += varintBytes(record.length) + record.length;
    if (records[i]!.timestamp > newest) newest = records[i]!.timestamp;
  }
  const bytes = Buffer.allocUnsafe(length);
  let at = headerBytes;
  for (let i = 0; i < prepared.length; i++) at = writeRecord(bytes, at, prepared[i]!, i);
  writeHeader(bytes, {
    baseOffset: batch.baseOffset ?? 0n,
    leaderEpoch: batch.leaderEpoch ?? -1,
    attributes: (batch.isTransactional ? 0x10 : 0) | (batch.isControl ? 0x20 : 0),
    lastOffsetDelta: records.length - 1,
    baseTimestamp: first.timestamp,
    maxTimestamp: newest,
    producerId: batch.producerId ?? -1n,
    producerEpoch: batch.producerEpoch ?? -1,
    baseSequence: batch.baseSequence ?? -1,
    recordCount: records.length,
  });
  return bytes;
}

interface EncodedHeader {
  readonly key: Buffer;
  readonly value: Buffer | null;
}

interface Prepared {
  readonly timestampDelta: bigint;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly EncodedHeader[];
  /** Of the record after its length. */
  readonly length: number;
}

function prepare(record: NewRecord, offsetDelta: number, base: bigint): Prepared {
  const timestampDelta = record.timestamp - base;
  const { key = null, value = null } = record;
  const headers = (record.headers ?? []).map(header => ({ key: Buffer.from(header.key), value: header.value }));
  let length = 1 + varlongBytes(timestampDelta) + varintBytes(offsetDelta);
  length += blobBytes(key) + blobBytes(value) + headersBytes(headers);
  return { timestampDelta, key, value, headers, length };
}

function writeRecord(bytes: Buffer, start: number, record: Prepared, offsetDelta: number): number {
  let at = writeVarint(bytes, start, record.length);
  bytes[at++] = 0;
  at = writeVarlong(bytes, at, record.timestampDelta);
  at = writeVarint(bytes, at, offsetDelta);
  at = writeBlob(bytes, at, record.key);
  at = writeBlob(bytes, at, record.value);
  return writeHeaders(bytes, at, record.headers);
}

function headersBytes(headers: readonly EncodedHeader[]): number {
  let length = varintBytes(headers.length);
  for (const { key, value } of headers) length += blobBytes(key) + blobBytes(value);
  return length;
}

function writeHeaders(bytes: Buffer, start: number, headers: readonly EncodedHeader[]): number {
  let at = writeVarint(bytes, start, headers.length);
  for (const { key, value } of headers) at = writeBlob(bytes, writeBlob(bytes, at, key), value);
  return at;
}

/** Headers, each a name and its value, as they stand in a record, their count before them. */
export function encodeHeaders(headers: readonly (readonly [string, Buffer | null])[]): Buffer {
  const encoded = headers.map(([name, value]) => ({ key: Buffer.from(name), value }));
  const bytes = Buffer.allocUnsafe(headersBytes(encoded));
  writeHeaders(bytes, 0, encoded);
  return bytes;
}

/** `section` is what follows the header of `batch`, uncompressed. Throws WireError. */
export function readRecords(batch: Buffer, section: Buffer): LogRecord[] {
  const count = recordCount(batch);
  if (count < 0 || count * leastRecordBytes > section.length) {
    throw new WireError(`${count} records announced in ${section.length} bytes`);
  }
  const base = baseOffset(batch);
  const firstTimestamp = baseTimestamp(batch);
  // With LogAppendTime (KIP-32) every record has the batch's max timestamp.
  const appendTime = isLogAppendTime(batch) ? maxTimestamp(batch) : undefined;
  const cursor = new RecordCursor(section);
  const records: LogRecord[] = [];
  for (let i = 0; i < count; i++) {
    const end = cursor.begin();
    const timestampDelta = cursor.varlong();
    const offsetDelta = cursor.varint();
    records.push({
      offset: base + BigInt(offsetDelta),
      timestamp: appendTime ?? firstTimestamp + timestampDelta,
      key: cursor.blob(),
      value: cursor.blob(),
      headers: cursor.headers(),
    });
    cursor.finish(end);
  }
  if (cursor.at !== section.length) throw new WireError(`${section.length - cursor.at} bytes after the last record`);
  return records;
}

/**
 * The first record from `from` on whose timestamp fits, found without reading the others' keys, values and headers.
 * `section` is what follows the header of `batch`, uncompressed. Throws WireError.
 */
export function findRecord(
  batch: Buffer,
  section: Buffer,
  from: bigint,
  fits: (timestamp: bigint) => boolean,
): { readonly offset: bigint; readonly timestamp: bigint } | undefined {
  const base = baseOffset(batch);
  const firstTimestamp = baseTimestamp(batch);
  const appendTime = isLogAppendTime(batch) ? maxTimestamp(batch) : undefined;
  const fromDelta = Number(from - base);
  const cursor = new RecordCursor(section);
  for (let count = recordCount(batch); count > 0; count--) {
    const end = cursor.begin();
    const timestampDelta = cursor.varlong();
    const offsetDelta = cursor.varint();
    if (offsetDelta >= fromDelta) {
      const timestamp = appendTime ?? firstTimestamp + timestampDelta;
      if (fits(timestamp)) return { offset: base + BigInt(offsetDelta), timestamp };
    }
    cursor.at = end;
  }
  return undefined;
}

/** Whether `section` is `count` records, one after another, each as long as it says; what is in them is not read. */
export function holdsRecords(section: Buffer, count: number): boolean {
  const cursor = new RecordCursor(section);
  try {
    for (let i = 0; i < count; i++) cursor.at = cursor.begin();
  } catch (error) {
    if (error instanceof WireError) return false;
    throw error;
  }
  return cursor.at === section.length;
}

class RecordCursor {
  readonly bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  private need(count: number): void {
    if (count > this.bytes.length - this.at) throw new WireError(`record cut short at ${this.at}`);
  }

  varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      this.need(1);
      const byte = this.bytes[this.at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    }
    throw new WireError(`varint longer than 32 bits before ${this.at}`);
  }

  varlong(): bigint {
    let low = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      this.need(1);
      const byte = this.bytes[this.at++]!;
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt((low >>> 1) ^ -(low & 1));
    }
    let value = BigInt(low);
    for (let shift = 28n; shift < 70n; shift += 7n) {
      this.need(1);
      const byte = this.bytes[this.at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, (value >> 1n) ^ -(value & 1n));
    }
    throw new WireError(`varint longer than 64 bits before ${this.at}`);
  }

  /** Reads a record's length and attributes, which mean nothing yet, and returns where the record ends. */
  begin(): number {
    const length = this.varint();
    if (length < leastRecordBytes - 1) throw new WireError(`record of ${length} bytes before ${this.at}`);
    this.need(length);
    const end = this.at + length;
    this.at++;
    return end;
  }
  finish(end: number): void {
    if (this.at !== end) throw new WireError(`record ends at ${this.at}, announced ${end}`);
  }

  blob(): Buffer | null {
    const length = this.varint();
    if (length < 0) return null;
    this.need(length);
    const start = this.at;
    this.at += length;
    return this.bytes.subarray(start, this.at);
  }

  headers(): RecordHeader[] {
    const count = this.varint();
    if (count < 0) throw new WireError(`${count} record headers before ${this.at}`);
    this.need(count * 2);
    const headers: RecordHeader[] = [];
    for (let i = 0; i < count; i++) {
      const key = this.blob();
      if (key === null) throw new WireError(`record header without a key before ${this.at}`);
      headers.push({ key: key.toString(), value: this.blob() });
    }
    return headers;
  }
}

const blobBytes = (blob: Buffer | null): number => (blob === null ? 1 : varintBytes(blob.length) + blob.length);

function writeBlob(bytes: Buffer, start: number, blob: Buffer | null): number {
  if (blob === null) return writeVarint(bytes, start, -1);
  const at = writeVarint(bytes, start, blob.length);
  blob.copy(bytes, at);
  return at + blob.length;
}
