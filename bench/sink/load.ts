// Fills a topic with the stream's records, the same bytes on any broker.
import { TopicWriter } from '../clients/topic-writer.ts';
import { Batching, partitions, stored } from './stream.ts';

export async function load(
  bootstrap: string,
  topic: string,
  { repeats, schemas, seed }: { readonly repeats: number; readonly schemas: boolean; readonly seed: number },
  records: number,
): Promise<void> {
  const writer = await TopicWriter.open(bootstrap, topic, partitions);
  const batching = new Batching(schemas);
  const now = Date.now();
  for (const placed of stored({ repeats, seed }, records)) {
    const batch = batching.add(placed, now);
    if (batch) await writer.write(placed.partition, batch);
  }
  for (let partition = 0; partition < partitions; partition++) {
    const batch = batching.take(partition);
    if (batch) await writer.write(partition, batch);
  }
  await writer.close();
}
