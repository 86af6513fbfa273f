// The 61-byte header of a record batch, format v2 (KIP-98; Kafka's documentation, "Record Batch"). Accessors read
// the bytes in place: the produce and fetch paths decode nothing else, and allocate nothing per batch.
import { crc32c } from '@node-rs/crc32';
import { WireError } from './wire.ts';

/** baseOffset (8) and batchLength (4): what precedes the bytes that batchLength counts. */
export const logOverhead = 12;
export const headerBytes = 61;

const at = {
  baseOffset: 0,
  batchLength: 8,
  partitionLeaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  baseTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  baseSequence: 53,
  recordCount: 57,
} as const;

// `start` is where the batch begins in `bytes`.
export const baseOffset = (bytes: Buffer, start = 0): bigint => bytes.readBigInt64BE(start + at.baseOffset);
export const lastOffset = (bytes: Buffer, start = 0): bigint =>
  bytes.readBigInt64BE(start + at.baseOffset) + BigInt(bytes.readInt32BE(start + at.lastOffsetDelta));
/** The whole batch, in bytes. */
export const batchBytes = (bytes: Buffer, start = 0): number => bytes.readInt32BE(start + at.batchLength) + logOverhead;
export const leaderEpoch = (bytes: Buffer, start = 0): number => bytes.readInt32BE(start + at.partitionLeaderEpoch);
export const magic = (bytes: Buffer, start = 0): number => bytes.readInt8(start + at.magic);
export const attributes = (bytes: Buffer, start = 0): number => bytes.readInt16BE(start + at.attributes);
export const lastOffsetDelta = (bytes: Buffer, start = 0): number => bytes.readInt32BE(start + at.lastOffsetDelta);
export const baseTimestamp = (bytes: Buffer, start = 0): bigint => bytes.readBigInt64BE(start + at.baseTimestamp);
export const maxTimestamp = (bytes: Buffer, start = 0): bigint => bytes.readBigInt64BE(start + at.maxTimestamp);
export const producerId = (bytes: Buffer, start = 0): bigint => bytes.readBigInt64BE(start + at.producerId);
export const producerEpoch = (bytes: Buffer, start = 0): number => bytes.readInt16BE(start + at.producerEpoch);
export const baseSequence = (bytes: Buffer, start = 0): number => bytes.readInt32BE(start + at.baseSequence);
export const recordCount = (bytes: Buffer, start = 0): number => bytes.readInt32BE(start + at.recordCount);

export const codec = (bytes: Buffer, start = 0): number => attributes(bytes, start) & 0x07;
export const isLogAppendTime = (bytes: Buffer, start = 0): boolean => (attributes(bytes, start) & 0x08) !== 0;
export const isTransactional = (bytes: Buffer, start = 0): boolean => (attributes(bytes, start) & 0x10) !== 0;
export const isControl = (bytes: Buffer, start = 0): boolean => (attributes(bytes, start) & 0x20) !== 0;

/** Neither field is under the CRC, so the producer's bytes stay valid. */
export function assignOffset(bytes: Buffer, start: number, offset: bigint, epoch: number): void {
  bytes.writeBigInt64BE(offset, start + at.baseOffset);
  bytes.writeInt32BE(epoch, start + at.partitionLeaderEpoch);
}

/** Whose batch it is (KIP-98), for the one batch that `bytes` holds. The CRC covers it, so it is made anew. */
export function assignProducer(bytes: Buffer, id: bigint, epoch: number, sequence: number): void {
  bytes.writeBigInt64BE(id, at.producerId);
  bytes.writeInt16BE(epoch, at.producerEpoch);
  bytes.writeInt32BE(sequence, at.baseSequence);
  writeCrc(bytes);
}

/**
 * Makes the one batch that `bytes` holds nobody's: no producer, no transaction, and no time at which its tombstones may go
 * (KIP-534). The CRC covers it, so it is made anew.
 */
export function clearProducer(bytes: Buffer): void {
  bytes.writeInt16BE(attributes(bytes) & 0x0f, at.attributes);
  assignProducer(bytes, -1n, -1, -1);
}

/** Turns a batch to LogAppendTime (KIP-32): every record then has `timestamp`. The CRC covers it, so it is made anew. */
export function stampAppendTime(bytes: Buffer, start: number, timestamp: bigint): void {
  bytes.writeInt16BE(attributes(bytes, start) | 0x08, start + at.attributes);
  bytes.writeBigInt64BE(timestamp, start + at.maxTimestamp);
  writeCrc(bytes, start);
}

export const computeCrc = (bytes: Buffer, start = 0): number =>
  crc32c(bytes.subarray(start + at.attributes, start + batchBytes(bytes, start)));

export const crc = (bytes: Buffer, start = 0): number => bytes.readUInt32BE(start + at.crc);

export function writeCrc(bytes: Buffer, start = 0): void {
  bytes.writeUInt32BE(computeCrc(bytes, start), start + at.crc);
}

export interface BatchHeader {
  readonly baseOffset: bigint;
  readonly leaderEpoch: number;
  readonly attributes: number;
  readonly lastOffsetDelta: number;
  readonly baseTimestamp: bigint;
  readonly maxTimestamp: bigint;
  readonly producerId: bigint;
  readonly producerEpoch: number;
  readonly baseSequence: number;
  readonly recordCount: number;
}

/** Writes the header of the one batch that fills `bytes`, whose records are in place already. */
export function writeHeader(bytes: Buffer, header: BatchHeader): void {
  bytes.writeBigInt64BE(header.baseOffset, at.baseOffset);
  bytes.writeInt32BE(bytes.length - logOverhead, at.batchLength);
  bytes.writeInt32BE(header.leaderEpoch, at.partitionLeaderEpoch);
  bytes.writeInt8(2, at.magic);
  bytes.writeInt16BE(header.attributes, at.attributes);
  bytes.writeInt32BE(header.lastOffsetDelta, at.lastOffsetDelta);
  bytes.writeBigInt64BE(header.baseTimestamp, at.baseTimestamp);
  bytes.writeBigInt64BE(header.maxTimestamp, at.maxTimestamp);
  bytes.writeBigInt64BE(header.producerId, at.producerId);
  bytes.writeInt16BE(header.producerEpoch, at.producerEpoch);
  bytes.writeInt32BE(header.baseSequence, at.baseSequence);
  bytes.writeInt32BE(header.recordCount, at.recordCount);
  writeCrc(bytes);
}

/** `batch` with its records section replaced by `section`, which is in the given codec. Everything else stays. */
export function replaceRecords(batch: Buffer, section: Buffer, codecNumber: number): Buffer {
  const bytes = Buffer.allocUnsafe(headerBytes + section.length);
  batch.copy(bytes, 0, 0, headerBytes);
  section.copy(bytes, headerBytes);
  bytes.writeInt32BE(bytes.length - logOverhead, at.batchLength);
  bytes.writeInt16BE((attributes(batch) & ~0x07) | codecNumber, at.attributes);
  writeCrc(bytes);
  return bytes;
}

/**
 * Where the format v2 batch that begins at `start` ends, or -1 when `bytes` does not hold all of it, as at the end of
 * a fetch response. Throws WireError for bytes that no batch of format v2 begins with.
 */
export function endOfBatch(bytes: Buffer, start: number): number {
  const left = bytes.length - start;
  // The older formats have their magic byte in the same place, and can be shorter than this header.
  if (left > at.magic && magic(bytes, start) !== 2)
    throw new WireError(`record format ${magic(bytes, start)} at ${start}`);
  if (left < headerBytes) return -1;
  const length = batchBytes(bytes, start);
  if (length < headerBytes) throw new WireError(`record batch of ${length} bytes at ${start}`);
  return length > left ? -1 : start + length;
}

/** The whole batches of a run, in place; an incomplete one at the end is left out, as Kafka's clients do. */
export function splitBatches(bytes: Buffer): Buffer[] {
  const batches: Buffer[] = [];
  let start = 0;
  for (let end = endOfBatch(bytes, 0); end >= 0; end = endOfBatch(bytes, start)) {
    batches.push(bytes.subarray(start, end));
    start = end;
  }
  return batches;
}
