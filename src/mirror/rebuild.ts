// Batches that cannot go as they are: parts of one, and those that this log has stamped with its own time (LogAppendTime,
// which a target takes from no producer). Keys, values, headers, timestamps and the codec stay.
import { decodeBatch, recompress } from '../protocol/compression.ts';
import { assignOffset, baseOffset, codec, isLogAppendTime } from '../protocol/record-batch.ts';
import { buildBatch, type LogRecord } from '../protocol/records.ts';

/** A record batch may grow to this when it is unpacked. */
const unpackedBytes = 256 * 2 ** 20;

/** Rejects with CompressionError or WireError. */
export const recordsOf = (batch: Buffer): Promise<LogRecord[]> => decodeBatch(batch, unpackedBytes);

/** A batch of some records of `batch`, at least one. */
export function batchOf(records: readonly LogRecord[], batch: Buffer): Promise<Buffer> {
  return recompress(buildBatch({ records }), codec(batch), { maxBytes: unpackedBytes });
}

/** `batch` as a producer may send it, from `offset` on: itself, written to, where that can be. */
export async function sendable(batch: Buffer, offset: bigint): Promise<Buffer> {
  if (baseOffset(batch) >= offset && !isLogAppendTime(batch)) {
    // As producers give it: what it is there, the target says.
    assignOffset(batch, 0, 0n, -1);
    return batch;
  }
  const records = await recordsOf(batch);
  return batchOf(
    records.filter(record => record.offset >= offset),
    batch,
  );
}
