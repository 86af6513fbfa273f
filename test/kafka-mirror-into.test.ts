// A mirror out of a real Apache Kafka: it holds committed and aborted transactions, its broker is killed while records are
// copied, and Millrace too; then a group moves over.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { type KafkaServer, kafkaIsMissing, startKafka } from '../compat/kafka/kafka.ts';
import { createTopic, latest, listOffsets, topicConfig } from '../src/client/admin.ts';
import { commitOffsets } from '../src/client/offsets.ts';
import { recompress } from '../src/protocol/compression.ts';
import { buildBatch } from '../src/protocol/records.ts';
import { freePort } from './free-port.ts';
import { MirrorRig, produce } from './mirror-rig.ts';

const missing = kafkaIsMissing();
const skip = missing ? { skip: missing } : {};

let directory: string;
let kafka: KafkaServer;
let port: number;
let rig: MirrorRig;

async function start(): Promise<void> {
  const overrides = { 'offsets.topic.num.partitions': '1', 'transaction.state.log.num.partitions': '1' };
  kafka = await startKafka({ port, dataDir: join(directory, 'kafka'), heap: '400M', overrides });
}

before(async () => {
  if (missing) return;
  directory = mkdtempSync(join(tmpdir(), 'millrace-mirror-'));
  port = await freePort();
  await start();
  rig = await MirrorRig.open(`127.0.0.1:${port}`);
});
after(async () => {
  await rig?.remove();
  await kafka?.stop();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

test('every committed record of Kafka is here once, at its offset, though its broker is killed; a group goes on here', {
  ...skip,
  timeout: 200_000,
}, async () => {
  const { targetCluster: there, sourceCluster: here } = rig;
  const config = { 'compression.type': 'producer', 'max.message.bytes': '2000000' };
  await createTopic(there, { name: 'orders', partitionCount: 2, config });
  const client = new kafkajs.Kafka({
    brokers: [rig.targetAddress],
    logLevel: kafkajs.logLevel.NOTHING,
    retry: { retries: 100, initialRetryTime: 50, maxRetryTime: 500 },
  });
  const producer = client.producer({
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    transactionalId: 'writer',
    maxInFlightRequests: 1,
    idempotent: true,
  });
  const expected: string[] = [];
  let made = 0;
  const transact = async (outcome: 'commit' | 'abort'): Promise<void> => {
    const transaction = await producer.transaction();
    for (let sends = 0; sends < 3; sends++) {
      const values = Array.from({ length: 5 }, () => `${outcome} ${made++}`);
      if (outcome === 'commit') expected.push(...values);
      const messages = values.map(value => ({ key: `k${made % 7}`, value, partition: made % 2 }));
      await transaction.send({ topic: 'orders', messages, compression: kafkajs.CompressionTypes.GZIP });
    }
    await transaction[outcome]();
  };
  const plainly = async (codec: number): Promise<void> => {
    const values = Array.from({ length: 20 }, () => `plain ${made++}`);
    const records = values.map(value => ({ timestamp: BigInt(Date.now()), value: Buffer.from(value) }));
    // kafkajs, which reads the first, knows two codecs.
    const partition = codec < 2 ? 0 : 1;
    await produce(there, 'orders', partition, await recompress(buildBatch({ records }), codec, { maxBytes: 2 ** 20 }));
    expected.push(...values);
  };
  const write = async (): Promise<void> => {
    for (const codec of [0, 1, 2, 3, 4]) {
      await transact('commit');
      await plainly(codec);
      await transact('abort');
    }
  };
  try {
    await producer.connect();
    await write();
    await rig.createInto('in', { topics: ['*'], groupsEveryMs: 3_600_000 });
    await rig.until('in', ({ state, partitions }) => state === 'running' && partitions.length === 2);
    await kafka.kill();
    await start();
    await write();
    // One stays open: it is not read, nor what follows it.
    const open = await producer.transaction();
    await open.send({ topic: 'orders', messages: [{ value: 'open', partition: 0 }] });
    const ends = await listOffsets(there, 'orders', [0, 1], latest, 'read_committed');
    await rig.until('in', ({ partitions }) =>
      partitions.every(({ partition, nextOffset }) => BigInt(nextOffset!) === ends.get(Number(partition))),
    );
    await open.abort();
  } finally {
    await producer.disconnect();
  }
  const { records: same, differences, foreign, found } = await rig.compare('in');
  assert.deepEqual([same, differences, foreign, found], [BigInt(expected.length), 0n, 0n, []]);
  const ranges = await rig.api<{ sourceOffset: number; targetOffset: number }[]>('/in/offsets');
  assert.deepEqual(
    ranges.map(({ sourceOffset, targetOffset }) => [sourceOffset, targetOffset]),
    [
      [0, 0],
      [0, 0],
    ],
  );
  assert.deepEqual(await topicConfig(here, 'orders', Object.keys(config)), config);

  const ends = await listOffsets(there, 'orders', [0, 1], latest);
  const half = 17n;
  await commitOffsets(there, 'readers', [
    { topic: 'orders', partition: 0, offset: half },
    { topic: 'orders', partition: 1, offset: ends.get(1)! },
  ]);
  await rig.api('/in/groups', 'POST');
  const { rows } = await rig.database.pool.query<{ value: Buffer; partition: number; at: bigint }>(
    `SELECT value, partition, partition_offset AS at FROM kafka.messages WHERE topic = 'orders' AND partition_offset >= 0`,
  );
  const left = rows.filter(({ partition, at }) => partition === 0 && at >= half).length;
  const read: string[] = [];
  const consumer = new kafkajs.Kafka({ brokers: [rig.sourceAddress], logLevel: kafkajs.logLevel.NOTHING }).consumer({
    groupId: 'readers',
    maxWaitTimeInMs: 100,
  });
  await consumer.connect();
  await consumer.subscribe({ topics: ['orders'], fromBeginning: true });
  await new Promise<void>(resolve => {
    void consumer.run({
      eachMessage: async ({ message, partition }) => {
        read.push(`${partition}@${message.offset}`);
        if (read.length === left) resolve();
      },
    });
  });
  await consumer.disconnect();
  assert.equal(read.length, left);
  assert.ok(read.every(place => place.startsWith('0@')));
});
