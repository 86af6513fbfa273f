// What a partition of any cluster holds, from its beginning to its end.
import { latest, listOffsets } from '../src/client/admin.ts';
import type { Cluster } from '../src/client/cluster.ts';
import { fetchPartition } from '../src/client/fetch.ts';
import { decodeBatch } from '../src/protocol/compression.ts';
import { splitBatches } from '../src/protocol/record-batch.ts';

export async function valuesOf(cluster: Cluster, topic: string, partition = 0): Promise<string[]> {
  const end = (await listOffsets(cluster, topic, [partition], latest)).get(partition)!;
  const values: string[] = [];
  for (let offset = 0n; offset < end; ) {
    const { records } = await fetchPartition(cluster, { topic, partition, offset, maxBytes: 2 ** 20 });
    for (const batch of splitBatches(records)) {
      for (const record of await decodeBatch(batch, 2 ** 24)) {
        if (record.offset < offset) continue;
        values.push(record.value!.toString());
        offset = record.offset + 1n;
      }
    }
  }
  return values;
}
