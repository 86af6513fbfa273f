// How a peer's program reads its topic, with kafkajs: whole batches, one after the other of each partition, and offsets
// committed after what was made of them.
import { Kafka, logLevel } from 'kafkajs';

/** Batches of so many partitions are worked on at once. */
const partitionsAtOnce = 3;

export async function readTopic(
  bootstrap: string,
  topic: string,
  take: (values: readonly string[]) => Promise<void>,
): Promise<void> {
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR });
  const consumer = kafka.consumer({ groupId: `bench-${topic}` });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const joined = new Promise<void>(resolve => consumer.on(consumer.events.GROUP_JOIN, () => resolve()));
  await consumer.run({
    partitionsConsumedConcurrently: partitionsAtOnce,
    eachBatchAutoResolve: true,
    eachBatch: ({ batch }) => take(batch.messages.map(({ value }) => value!.toString())),
  });
  await joined;
  process.on('message', message => {
    if (message === 'pause') consumer.pause([{ topic }]);
    else consumer.resume([{ topic }]);
    process.send?.(message);
  });
  process.on('SIGTERM', () => process.exit());
  process.on('disconnect', () => process.exit());
}
