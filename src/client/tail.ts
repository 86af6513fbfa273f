// What a producer has last written to a partition, read from the partition's own end: how an idempotent writer finds out
// after a crash what had arrived, instead of guessing. `ownBatches` walks them from an offset that is known to be before
// them.
import { decodeBatch } from '../protocol/compression.ts';
import { ErrorCode } from '../protocol/errors.ts';
import * as header from '../protocol/record-batch.ts';
import type { LogRecord } from '../protocol/records.ts';
import { earliest, listOffsets } from './admin.ts';
import type { Cluster } from './cluster.ts';
import { KafkaError, UnreachableError } from './errors.ts';
import { checkedBatches, fetchPartition } from './fetch.ts';

export interface OwnBatches {
  /** The newest batch of one of the producers; undefined: there is none. */
  readonly newest: Buffer | undefined;
  /** The newest that still holds a record: compaction empties batches, and keeps the last of a producer for its sequence. */
  readonly newestWithRecords: Buffer | undefined;
}

const scanBytes = 1_048_576;
/** A record batch may grow to this when it is unpacked. */
const unpackedBytes = 256 * 2 ** 20;

/** Of the batches between `from` and `end`, those of `producerIds`, oldest first. What has been deleted is passed over. */
export async function* ownBatches(
  cluster: Cluster,
  topic: string,
  partition: number,
  from: bigint,
  end: bigint,
  producerIds: ReadonlySet<bigint>,
): AsyncIterable<Buffer> {
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
      if (producerIds.has(header.producerId(batch)) && !header.isControl(batch)) yield batch;
    }
    if (at === before)
      throw new UnreachableError(`partition ${partition} of ${topic} gives nothing at ${at}, before its end`);
  }
}

/** The newest of `ownBatches`. */
export async function scanOwn(...where: Parameters<typeof ownBatches>): Promise<OwnBatches> {
  let newest: Buffer | undefined;
  let newestWithRecords: Buffer | undefined;
  for await (const batch of ownBatches(...where)) {
    newest = batch;
    if (header.recordCount(batch) > 0) newestWithRecords = batch;
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

/** Whether `there` is `batch` as the same producer sent it, whatever the target has made of offsets, timestamps and codec. */
export async function holdsTheSame(there: Buffer, batch: Buffer): Promise<boolean> {
  if (
    header.producerId(there) !== header.producerId(batch) ||
    header.baseSequence(there) !== header.baseSequence(batch)
  ) {
    return false;
  }
  const [theirs, ours] = await Promise.all([decodeBatch(there, unpackedBytes), decodeBatch(batch, unpackedBytes)]);
  const text = (records: readonly LogRecord[]) =>
    records.map(({ key, value, headers }) => [key, value, ...headers.flatMap(h => [Buffer.from(h.key), h.value])]);
  const [a, b] = [text(theirs).flat(), text(ours).flat()];
  return (
    a.length === b.length && a.every((part, i) => (part === null ? b[i] === null : b[i] !== null && part.equals(b[i]!)))
  );
}
