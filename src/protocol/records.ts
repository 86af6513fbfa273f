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
import { RecordCursor } from './record-cursor.ts';
import { RecordPlaces } from './record-places.ts';
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
  const places = new RecordPlaces();
  places.read(batch, section);
  return Array.from({ length: places.count }, (_, i) => places.record(i));
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

const blobBytes = (blob: Buffer | null): number => (blob === null ? 1 : varintBytes(blob.length) + blob.length);

function writeBlob(bytes: Buffer, start: number, blob: Buffer | null): number {
  if (blob === null) return writeVarint(bytes, start, -1);
  const at = writeVarint(bytes, start, blob.length);
  blob.copy(bytes, at);
  return at + blob.length;
}
