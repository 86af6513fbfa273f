// From a timestamp to an offset: Postgres finds the row by its newest timestamp, the batches in it tell the batch, and
// only that batch is decoded.
import { decodeBatch } from '../protocol/compression.ts';
import * as batchHeader from '../protocol/record-batch.ts';
import type { Log } from '../storage/log.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import { cutRun } from '../storage/tail-cache.ts';

/** Of a compressed batch that is looked into. */
const maxInflatedBytes = 64 * 1024 * 1024;

export interface Found {
  readonly offset: bigint;
  /** ms since the Unix epoch. */
  readonly timestamp: bigint;
  readonly leaderEpoch: number;
}

/** The first record at or past the log start whose timestamp is `timestamp` or later. */
export async function firstRecordSince(
  log: Log,
  partition: PartitionLog,
  timestamp: bigint,
): Promise<Found | undefined> {
  const row = await log.firstRowSince(partition, timestamp);
  if (!row) return undefined;
  return findIn(
    row.records,
    partition,
    batch => batchHeader.maxTimestamp(batch) >= timestamp,
    time => time >= timestamp,
  );
}

/** The first record with the newest timestamp of the partition. */
export async function newestRecord(log: Log, partition: PartitionLog): Promise<Found | undefined> {
  const row = await log.newestRow(partition);
  if (!row) return undefined;
  let newest = -1n;
  for (const batch of cutRun(row.records, partition.logStartOffset)) {
    const timestamp = batchHeader.maxTimestamp(batch);
    if (timestamp > newest) newest = timestamp;
  }
  return findIn(
    row.records,
    partition,
    batch => batchHeader.maxTimestamp(batch) === newest,
    time => time === newest,
  );
}

async function findIn(
  records: Buffer,
  partition: PartitionLog,
  batchFits: (batch: Buffer) => boolean,
  timeFits: (timestamp: bigint) => boolean,
): Promise<Found | undefined> {
  for (const batch of cutRun(records, partition.logStartOffset)) {
    if (!batchFits(batch)) continue;
    const leaderEpoch = batchHeader.leaderEpoch(batch);
    for (const { offset, timestamp } of await decodeBatch(batch, maxInflatedBytes)) {
      if (offset >= partition.logStartOffset && timeFits(timestamp)) return { offset, timestamp, leaderEpoch };
    }
  }
  return undefined;
}
