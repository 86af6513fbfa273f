// A log on a test's database, without a broker around it: topics, appends as a producer's, what was stored.
import { pino } from 'pino';
import { buildBatch } from '../src/protocol/records.ts';
import { BufferPool } from '../src/runtime/buffer-pool.ts';
import { Log, type LogOptions } from '../src/storage/log.ts';
import type { PartitionLog } from '../src/storage/partition-log.ts';
import { type Topic, Topics } from '../src/storage/topics.ts';
import type { TestDatabase } from './database.ts';

export interface OpenLog {
  readonly log: Log;
  readonly topics: Topics;
  createTopic(name: string, partitionCount?: number): Promise<Topic>;
  partition(topic: Topic, partition?: number): PartitionLog;
  /** Appends `count` records as one batch with acks=all; resolves with its answer. */
  append(topic: Topic, count?: number, partition?: number): Promise<{ error: number; baseOffset: bigint }>;
}

/** Started. One writer, so that everything appended at once is one group, and no tail cache: reads are of what is stored. */
export async function openLog(database: TestDatabase, options: Partial<LogOptions> = {}): Promise<OpenLog> {
  let log: Log | undefined;
  const topics = await Topics.load(database.pool, () => ({ brokerId: options.brokerId ?? 1, epoch: log!.epoch }));
  log = new Log({
    databaseUrl: database.url,
    pool: database.pool,
    topics,
    segmentRules: { closesAt: () => Date.now() + 86_400_000, maxBytes: () => Number.POSITIVE_INFINITY },
    brokerId: 1,
    advertised: 'here:9092',
    writers: 1,
    readers: 1,
    tailCacheBytes: 0,
    memory: new BufferPool(1024 * 1024),
    synchronousAcksOne: true,
    logger: pino({ level: 'silent' }),
    onDeposed: () => {},
    ...options,
  });
  const opened = log;
  await opened.start();
  const partition = (topic: Topic, id = 0): PartitionLog => opened.partition(topic, id)!;
  return {
    log: opened,
    topics,
    createTopic: (name, partitionCount = 1) => topics.create({ name, partitionCount, config: {} }),
    partition,
    append: (topic, count = 1, id = 0) => opened.append(topic, partition(topic, id), batchOf(count), -1, false).result,
  };
}

export function batchOf(count: number, timestamp = BigInt(Date.now())): Buffer {
  return buildBatch({
    records: Array.from({ length: count }, (_, i) => ({ timestamp, value: Buffer.from(`value ${i}`) })),
  });
}

/** Resolves once `condition` holds, which is asked for every few milliseconds. */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 240_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`never so: ${condition}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}
