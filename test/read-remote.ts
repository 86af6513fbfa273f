// Everything that a topic of a remote cluster holds, as kafkajs reads it.
import kafkajs from 'kafkajs';

export interface RemoteRecord {
  readonly partition: number;
  readonly offset: bigint;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** An admin client of kafkajs hands on what a cluster answers that has just begun, where it says that it may be asked again. */
export async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error as { retriable?: boolean }).retriable) throw error;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  }
}

/** By partition and offset, up to the ends as they are when it begins. */
export async function readRemote(bootstrap: string, topic: string): Promise<RemoteRecord[]> {
  // A cluster that has just begun looks for its coordinators for a while.
  const retry = { initialRetryTime: 50, maxRetryTime: 500, retries: 60 };
  const kafka = new kafkajs.Kafka({
    clientId: 'reader',
    brokers: [bootstrap],
    logLevel: kafkajs.logLevel.NOTHING,
    retry,
  });
  const admin = kafka.admin();
  await admin.connect();
  const groupId = `reader-${Math.random().toString(36).slice(2)}`;
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100, retry });
  try {
    const ends = new Map<number, bigint>();
    for (const { partition, offset } of await patiently(() => admin.fetchTopicOffsets(topic))) {
      if (BigInt(offset) > 0n) ends.set(partition, BigInt(offset));
    }
    const records: RemoteRecord[] = [];
    if (ends.size === 0) return records;
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await new Promise<void>((resolve, reject) => {
      consumer.on(consumer.events.CRASH, ({ payload: { error, restart } }) => {
        if (!restart) reject(error);
      });
      void consumer.run({
        eachBatch: async ({ batch }) => {
          for (const { offset, key, value, headers } of batch.messages) {
            records.push({
              partition: batch.partition,
              offset: BigInt(offset),
              key: key?.toString() ?? null,
              value: value?.toString() ?? null,
              headers: Object.fromEntries(Object.entries(headers ?? {}).map(([name, held]) => [name, String(held)])),
            });
          }
          const end = ends.get(batch.partition);
          if (end !== undefined && BigInt(batch.lastOffset()) + 1n >= end) ends.delete(batch.partition);
          if (ends.size === 0) resolve();
        },
      });
    });
    return records.sort((a, b) => a.partition - b.partition || Number(a.offset - b.offset));
  } finally {
    await consumer.disconnect();
    await admin.disconnect();
  }
}
