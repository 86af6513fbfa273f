// What a producer has last written to a partition, read from the partition's own end: how an idempotent writer finds out
// after a crash what had arrived, instead of guessing. `scanOwn` walks the batches from an offset that is known to be
// before them.
import { ErrorCode } from '../protocol/errors.ts';
import * as header from '../protocol/record-batch.ts';
import { WireError } from '../protocol/wire.ts';
import { earliest, listOffsets } from './admin.ts';
import type { Cluster } from './cluster.ts';
import { KafkaError, UnreachableError } from './errors.ts';
import { fetchPartition } from './fetch.ts';

export interface OwnBatches {
  /** The newest batch of one of the producers; undefined: there is none. */
  readonly newest: Buffer | undefined;
  /** The newest that still holds a record: compaction empties batches, and keeps the last of a producer for its sequence. */
  readonly newestWithRecords: Buffer | undefined;
}

const scanBytes = 1_048_576;

/** Of the batches between `from` and `end`, those of `producerIds`. What has been deleted is passed over. */
export async function scanOwn(
  cluster: Cluster,
  topic: string,
  partition: number,
  from: bigint,
  end: bigint,
  producerIds: ReadonlySet<bigint>,
): Promise<OwnBatches> {
  let newest: Buffer | undefined;
  let newestWithRecords: Buffer | undefined;
  for (let at = from; at < end; ) {
    let records: Buffer;
    try {
      ({ records } = await fetchPartition(cluster, { topic, partition, offset: at, maxBytes: scanBytes }));
    } catch (error) {
      if (!(error instanceof KafkaError) || error.code !== ErrorCode.OFFSET_OUT_OF_RANGE) throw error;
      const start = (await listOffsets(cluster, topic, [partition], earliest)).get(partition)!;
      if (start <= at) throw error;
      at = start;
      continue;
    }
    const before = at;
    for (const batch of checkedBatches(records)) {
      const last = header.lastOffset(batch);
      if (last < at) continue;
      at = last + 1n;
      if (!producerIds.has(header.producerId(batch)) || header.isControl(batch)) continue;
      newest = batch;
      if (header.recordCount(batch) > 0) newestWithRecords = batch;
    }
    if (at === before)
      throw new UnreachableError(`partition ${partition} of ${topic} gives nothing at ${at}, before its end`);
  }
  // Parts of a whole answer: copied, so that it is let go.
  return {
    newest: newest && Buffer.from(newest),
    newestWithRecords: newestWithRecords && Buffer.from(newestWithRecords),
  };
}

/** The batch that begins at `offset`, once it can be read; undefined where another one is there. */
export async function batchAt(
  cluster: Cluster,
  topic: string,
  partition: number,
  offset: bigint,
): Promise<Buffer | undefined> {
  return cluster.retrying(async () => {
    const { records } = await fetchPartition(cluster, { topic, partition, offset, maxBytes: scanBytes });
    const [batch] = checkedBatches(records);
    if (batch === undefined)
      throw new UnreachableError(`partition ${partition} of ${topic} does not give ${offset} yet`);
    return header.baseOffset(batch) === offset ? batch : undefined;
  });
}

function checkedBatches(bytes: Buffer): Buffer[] {
  let batches: Buffer[];
  try {
    batches = header.splitBatches(bytes);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw new UnreachableError('a fetch brought what are no record batches', { cause: error });
  }
  for (const batch of batches) {
    if (header.computeCrc(batch) !== header.crc(batch)) {
      throw new UnreachableError(`the batch at ${header.baseOffset(batch)} was damaged on its way`);
    }
  }
  return batches;
}
