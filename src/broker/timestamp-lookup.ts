// From a timestamp to an offset: Postgres finds the row by its newest timestamp, the batches in it tell the batch, and
// only that batch is looked into. Little is done at a time: rows and batches are large where it matters.
import { decompress } from '../protocol/compression.ts';
import { inflatedAtMost } from '../protocol/inflated-size.ts';
import * as batchHeader from '../protocol/record-batch.ts';
import { findRecord } from '../protocol/records.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import type { StoredRow } from '../storage/reader.ts';
import { cutRun } from '../storage/tail-cache.ts';
import { Allowance } from './allowance.ts';
import type { BrokerContext } from './context.ts';

/** Of a compressed batch that is looked into. */
const maxInflatedBytes = 64 * 1024 * 1024;
/** Rows that are read at a time. */
const lookups = new Allowance(4);

/** Where it is looked, and what bounds that. */
export type Lookup = Pick<BrokerContext, 'log' | 'inflation'>;

export interface Found {
  readonly offset: bigint;
  /** ms since the Unix epoch. */
  readonly timestamp: bigint;
  readonly leaderEpoch: number;
}

/** The first record at or past the log start whose timestamp is `timestamp` or later. Rejects as decompress does. */
export function firstRecordSince(
  broker: Lookup,
  partition: PartitionLog,
  timestamp: bigint,
): Promise<Found | undefined> {
  return lookUp(broker, partition, {
    row: from => broker.log.stored.firstRowSince(partition, timestamp, from),
    batchFits: newest => newest >= timestamp,
    timeFits: time => time >= timestamp,
  });
}

/** The first record with the newest timestamp of the partition. Rejects as decompress does. */
export async function newestRecord(broker: Lookup, partition: PartitionLog): Promise<Found | undefined> {
  await lookups.take(1);
  try {
    const start = partition.logStartOffset;
    let newest: bigint | undefined;
    let holder: Buffer | undefined;
    for (const row of await broker.log.stored.newestRows(partition)) {
      for (const batch of cutRun(row.records, start)) {
        // The header's may be of a record before the log start, where that cuts the batch.
        const timestamp =
          batchHeader.baseOffset(batch) < start
            ? await newestFrom(broker, batch, start)
            : batchHeader.maxTimestamp(batch);
        if (timestamp !== undefined && (newest === undefined || timestamp > newest))
          [newest, holder] = [timestamp, batch];
      }
    }
    const found = holder && (await findIn(broker, holder, start, timestamp => timestamp === newest));
    return found && { ...found, leaderEpoch: batchHeader.leaderEpoch(holder!) };
  } finally {
    lookups.give(1);
  }
}

/** The newest timestamp of a batch's records from `offset` on. */
async function newestFrom(broker: Lookup, batch: Buffer, offset: bigint): Promise<bigint | undefined> {
  let newest: bigint | undefined;
  await findIn(broker, batch, offset, timestamp => {
    if (newest === undefined || timestamp > newest) newest = timestamp;
    return false;
  });
  return newest;
}

interface Sought {
  /** The next row that may hold the record, at or after `from`. */
  row(from: bigint): Promise<StoredRow | undefined>;
  /** By a batch's newest timestamp. */
  batchFits(newest: bigint): boolean;
  timeFits(timestamp: bigint): boolean;
}

async function lookUp(broker: Lookup, partition: PartitionLog, sought: Sought): Promise<Found | undefined> {
  await lookups.take(1);
  try {
    // A row's newest timestamp may be that of a record before the log start; then the next row is asked for.
    const start = partition.logStartOffset;
    for (let row = await sought.row(start); row; row = await sought.row(row.lastOffset + 1n)) {
      for (const batch of cutRun(row.records, start)) {
        if (!sought.batchFits(batchHeader.maxTimestamp(batch))) continue;
        const found = await findIn(broker, batch, start, sought.timeFits);
        if (found) return { ...found, leaderEpoch: batchHeader.leaderEpoch(batch) };
      }
    }
    return undefined;
  } finally {
    lookups.give(1);
  }
}

async function findIn(
  { inflation }: Lookup,
  batch: Buffer,
  from: bigint,
  timeFits: (timestamp: bigint) => boolean,
): Promise<{ readonly offset: bigint; readonly timestamp: bigint } | undefined> {
  const codec = batchHeader.codec(batch);
  const section = batch.subarray(batchHeader.headerBytes);
  if (codec === 0) return findRecord(batch, section, from, timeFits);
  const most = Math.min(maxInflatedBytes, inflatedAtMost(codec, section.length));
  await inflation.take(most);
  try {
    return findRecord(batch, await decompress(section, codec, maxInflatedBytes), from, timeFits);
  } finally {
    inflation.give(most);
  }
}
