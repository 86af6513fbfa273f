// The client's questions about groups and partitions, answered by a Millrace, with kafkajs as the group.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { createPartitions, createTopic } from '../src/client/admin.ts';
import { Cluster } from '../src/client/cluster.ts';
import { describeGroup, fetchOffsets, listGroups } from '../src/client/groups.ts';
import { commitOffsets } from '../src/client/offsets.ts';
import { ErrorCode } from '../src/protocol/errors.ts';
import { createDatabase, type TestDatabase } from './database.ts';
import { Millrace } from './millrace.ts';

let database: TestDatabase;
let millrace: Millrace;
let cluster: Cluster;
let address: string;

before(async () => {
  database = await createDatabase();
  millrace = new Millrace([`--database-url=${database.url}`]);
  await millrace.ready();
  address = /Kafka +(127\.0\.0\.1:\d+)/.exec(millrace.stdout)![1]!;
  const [host, port] = address.split(':');
  cluster = new Cluster({ bootstrap: [{ host: host!, port: Number(port) }], clientId: 'test' });
});
after(async () => {
  cluster?.close();
  await millrace?.stop('SIGKILL');
  await database.drop();
});

test('offsets of a group are set and read from outside, unless it has members', async () => {
  await createTopic(cluster, { name: 'a', partitionCount: 2 });
  assert.deepEqual(await fetchOffsets(cluster, 'g'), []);
  await commitOffsets(cluster, 'g', [
    { topic: 'a', partition: 0, offset: 3n },
    { topic: 'a', partition: 1, offset: 4n, metadata: 'm' },
  ]);
  const offsets = (await fetchOffsets(cluster, 'g')).map(({ partition, offset, metadata }) => [
    partition,
    offset,
    metadata,
  ]);
  assert.deepEqual(offsets, [
    [0, 3n, ''],
    [1, 4n, 'm'],
  ]);
  assert.deepEqual(
    (await listGroups(cluster)).map(({ groupId }) => groupId),
    ['g'],
  );
  assert.equal((await describeGroup(cluster, 'g')).state, 'Empty');

  const kafka = new kafkajs.Kafka({ brokers: [address], logLevel: kafkajs.logLevel.NOTHING, clientId: 'reader' });
  const consumer = kafka.consumer({ groupId: 'g' });
  await consumer.connect();
  await consumer.subscribe({ topics: ['a'] });
  const joined = new Promise(resolve => consumer.on(consumer.events.GROUP_JOIN, resolve));
  await consumer.run({ eachMessage: async () => {} });
  await joined;
  const { state, members } = await describeGroup(cluster, 'g');
  assert.deepEqual([state, members.map(({ clientId }) => clientId)], ['Stable', ['reader']]);
  await assert.rejects(commitOffsets(cluster, 'g', [{ topic: 'a', partition: 0, offset: 0n }]), {
    code: ErrorCode.UNKNOWN_MEMBER_ID,
  });
  await consumer.disconnect();
  await commitOffsets(cluster, 'g', [{ topic: 'a', partition: 0, offset: 1n }]);
  assert.ok((await fetchOffsets(cluster, 'g')).some(({ partition, offset }) => partition === 0 && offset === 1n));
});

test('a topic is given more partitions, once', async () => {
  await createTopic(cluster, { name: 'b', partitionCount: 1 });
  for (let i = 0; i < 2; i++) assert.equal((await createPartitions(cluster, 'b', 3)).partitions.length, 3);
});
