// A consumer group of one reader that nobody kills, in rounds of faults: what it has read is committed, asked again until
// that is answered, and counts as processed only then. So whoever has its committed offset has each record once.
import type { Cluster } from '../../src/client/cluster.ts';
import { checkedBatches, fetchPartition } from '../../src/client/fetch.ts';
import { fetchOffsets } from '../../src/client/groups.ts';
import { commitOffsets } from '../../src/client/offsets.ts';
import { digestOf } from '../../src/mirror/compare.ts';
import { decodeBatch } from '../../src/protocol/compression.ts';

export class GroupReader {
  readonly #group: string;
  readonly #topic: string;
  /** By partition: digests of records, in their order. */
  readonly processed: string[][];

  constructor(group: string, topic: string, partitions: number) {
    this.#group = group;
    this.#topic = topic;
    this.processed = Array.from({ length: partitions }, () => []);
  }

  /** From the group's offsets in `cluster` on, as long as `goOn` says so. */
  async read(cluster: Cluster, goOn: () => boolean): Promise<void> {
    const next = this.processed.map(() => 0n);
    for (const { topic, partition, offset } of await fetchOffsets(cluster, this.#group)) {
      if (topic === this.#topic) next[partition] = offset;
    }
    while (goOn()) {
      for (const partition of next.keys()) {
        const digests = await readFrom(cluster, this.#topic, partition, next[partition]!);
        if (digests.length === 0) continue;
        const offset = next[partition]! + BigInt(digests.length);
        await commitOffsets(cluster, this.#group, [{ topic: this.#topic, partition, offset }]);
        next[partition] = offset;
        this.processed[partition]!.push(...digests);
      }
    }
  }
}

/** Digests of what a partition holds from `from` on: of one fetch. */
async function readFrom(cluster: Cluster, topic: string, partition: number, from: bigint): Promise<string[]> {
  const part = { topic, partition, offset: from, maxBytes: 2 ** 20 };
  const { records } = await fetchPartition(cluster, part, { maxWaitMs: 20 });
  const digests: string[] = [];
  for (const batch of checkedBatches(records)) {
    for (const record of await decodeBatch(batch, 2 ** 24)) if (record.offset >= from) digests.push(digestOf(record));
  }
  return digests;
}

/** Of all that a partition holds, from 0 on. */
export async function digestsOf(cluster: Cluster, topic: string, partition: number, end: bigint): Promise<string[]> {
  const digests: string[] = [];
  while (BigInt(digests.length) < end) {
    digests.push(...(await readFrom(cluster, topic, partition, BigInt(digests.length))));
  }
  return digests;
}
