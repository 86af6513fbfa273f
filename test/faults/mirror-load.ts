// What a mirror copies in rounds of faults.
import { setTimeout as delay } from 'node:timers/promises';
import type { Cluster } from '../../src/client/cluster.ts';
import { recompress } from '../../src/protocol/compression.ts';
import { buildBatch } from '../../src/protocol/records.ts';
import { produce } from '../mirror-rig.ts';
import type { Random } from './random.ts';

export interface MirrorLoad {
  readonly topic: string;
  readonly partitions: number;
  /** How many of Kafka's: 2 are none and gzip, 5 all. */
  readonly codecs: number;
  readonly random: Random;
  readonly goOn: () => boolean;
}

/** What is not acknowledged may be there or not: the topic itself says. No two records have the same header id. */
export async function writeBatches(
  cluster: Cluster,
  { topic, partitions, codecs, random, goOn }: MirrorLoad,
): Promise<void> {
  for (let made = 0; goOn(); ) {
    const records = Array.from({ length: 1 + random.below(50) }, () => {
      made++;
      const value = random.below(10) === 0 ? null : random.bytes(random.below(200));
      const headers = [{ key: 'id', value: Buffer.from(`b${made}`) }];
      return { timestamp: BigInt(Date.now()), key: Buffer.from(`k${made % 100}`), value, headers };
    });
    const batch = await recompress(buildBatch({ records }), random.below(codecs), { maxBytes: 2 ** 24 });
    try {
      await produce(cluster, topic, random.below(partitions), batch);
      await delay(5); // all that is written is held against what a group has had
    } catch {
      await delay(20);
    }
  }
}
