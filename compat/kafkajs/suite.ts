// kafkajs 2.2.4. Usage: suite.ts HOST:PORT [part of a check's name]

import assert from 'node:assert/strict';
import kafkajs, { type CompressionTypes, type KafkaMessage, type Message } from 'kafkajs';
import { bootstrap, type Check, runSuite, unique, until } from '../suite.ts';
import { groupChecks } from './groups.ts';
import { connect } from './member.ts';

const kafka = connect(bootstrap);
const topicConfig = kafkajs.ConfigResourceTypes.TOPIC;
const admin = kafka.admin();
await admin.connect();

async function newTopic(word: string, partitions = 1): Promise<string> {
  const topic = unique(`kafkajs-${word}`);
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: partitions }] }), true);
  return topic;
}

async function produce(topic: string, messages: Message[], compression?: CompressionTypes, acks = -1) {
  const producer = kafka.producer();
  await producer.connect();
  const results = await producer.send({ topic, messages, acks, ...(compression ? { compression } : {}) });
  await producer.disconnect();
  return results;
}

async function read(topic: string, count: number): Promise<KafkaMessage[]> {
  const consumer = kafka.consumer({ groupId: unique('kafkajs-reader'), maxWaitTimeInMs: 200 });
  const messages: KafkaMessage[] = [];
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      messages.push(message);
    },
  });
  await until(`${count} records of ${topic}`, () => messages.length >= count);
  await consumer.disconnect();
  return messages;
}

const text = (message: KafkaMessage) => String(message.value);

const codec = (name: 'None' | 'GZIP' | 'Snappy' | 'LZ4' | 'ZSTD'): Check => ({
  name: `produce and consume ${name.toLowerCase()}`,
  run: async () => {
    const topic = await newTopic(name.toLowerCase());
    const sent = Array.from({ length: 2000 }, (_, i) => `${i} ${'ab'.repeat(i % 50)} żółć`);
    const messages = sent.map(value => ({ value }));
    const [result] = await produce(topic, messages, kafkajs.CompressionTypes[name]);
    assert.equal(result?.baseOffset, '0');
    assert.deepEqual((await read(topic, sent.length)).map(text), sent);
  },
});

const acks = (level: number): Check => ({
  name: `acks=${level}`,
  run: async () => {
    const topic = await newTopic('acks');
    await produce(topic, [{ value: 'a' }, { value: 'b' }], undefined, level);
    assert.deepEqual((await read(topic, 2)).map(text), ['a', 'b']);
  },
});

const recordChecks: Check[] = [
  codec('None'),
  codec('GZIP'),
  codec('Snappy'),
  codec('LZ4'),
  codec('ZSTD'),
  acks(0),
  acks(1),
  acks(-1),
  {
    name: 'idempotent producer',
    run: async () => {
      const topic = await newTopic('idempotent');
      const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
      await producer.connect();
      const sent: string[] = [];
      for (let i = 0; i < 20; i += 1) {
        sent.push(`${i} a`, `${i} b`);
        await producer.send({ topic, messages: [{ value: `${i} a` }, { value: `${i} b` }] });
      }
      await producer.disconnect();
      assert.deepEqual((await read(topic, sent.length)).map(text), sent);
    },
  },
  {
    name: 'keys, null and empty keys and values',
    run: async () => {
      const topic = await newTopic('nulls');
      const sent = [
        { key: 'k', value: 'v' },
        { key: null, value: 'v' },
        { key: 'k', value: null },
        { key: null, value: null },
        { key: '', value: '' },
        { key: Buffer.from([0, 255, 128]), value: Buffer.from([255, 0]) },
      ];
      await produce(topic, sent);
      const bytes = (data: string | Buffer | null) => (data === null ? null : Buffer.from(data));
      assert.deepEqual(
        (await read(topic, sent.length)).map(({ key, value }) => ({ key, value })),
        sent.map(({ key, value }) => ({ key: bytes(key), value: bytes(value) })),
      );
    },
  },
  {
    name: 'headers with duplicates',
    run: async () => {
      const topic = await newTopic('headers');
      // kafkajs groups equal names, and fails on a null header value.
      const headers = { b: ['2', '3'], a: '1', empty: '' };
      await produce(topic, [{ value: 'x', headers }]);
      const [message] = await read(topic, 1);
      assert.deepEqual(Object.entries(message!.headers!), [
        ['b', [Buffer.from('2'), Buffer.from('3')]],
        ['a', Buffer.from('1')],
        ['empty', Buffer.alloc(0)],
      ]);
    },
  },
  {
    name: 'a record of 1 MB, and one over the limit refused',
    run: async () => {
      const topic = await newTopic('large');
      const value = Buffer.alloc(1_048_000, 'Millrace ');
      await produce(topic, [{ value }]);
      const [message] = await read(topic, 1);
      assert.ok(message?.value?.equals(value));
      const refused = produce(topic, [{ value: Buffer.alloc(2_000_000, 'x') }]);
      await assert.rejects(refused, { type: 'MESSAGE_TOO_LARGE' });
    },
  },
  {
    name: 'timestamps as given, far apart in one batch',
    run: async () => {
      const topic = await newTopic('times');
      const timestamps = ['1000', String(Date.now()), '1700000000123'];
      await produce(
        topic,
        timestamps.map(timestamp => ({ value: 'x', timestamp })),
      );
      assert.deepEqual(
        (await read(topic, 3)).map(message => message.timestamp),
        timestamps,
      );
    },
  },
  {
    name: 'keys choose partitions',
    run: async () => {
      const topic = await newTopic('partitions', 3);
      const messages = Array.from({ length: 60 }, (_, i) => ({ key: `key ${i}`, value: 'x' }));
      await produce(topic, messages);
      const offsets = await admin.fetchTopicOffsets(topic);
      assert.equal(offsets.length, 3);
      assert.ok(offsets.every(partition => Number(partition.high) > 0 && partition.low === '0'));
      assert.equal(
        offsets.reduce((sum, partition) => sum + Number(partition.high), 0),
        60,
      );
    },
  },
  {
    name: 'a topic is made by producing to it',
    run: async () => {
      const topic = unique('kafkajs-auto');
      await produce(topic, [{ value: 'x' }]);
      assert.ok((await admin.listTopics()).includes(topic));
    },
  },
];

const adminChecks: Check[] = [
  {
    name: 'admin: topics created, listed, described, deleted',
    run: async () => {
      const topic = await newTopic('admin', 5);
      assert.equal(await admin.createTopics({ topics: [{ topic }] }), false);
      assert.ok((await admin.listTopics()).includes(topic));
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      assert.deepEqual(topics[0]?.partitions.map(partition => partition.partitionId).sort(), [0, 1, 2, 3, 4]);
      await admin.deleteTopics({ topics: [topic] });
      await until('the topic is gone', async () => !(await admin.listTopics()).includes(topic));
      // Retried for a quarter of a minute by default, as the topic may be new.
      const hasty = kafka.admin({ retry: { retries: 0 } });
      await hasty.connect();
      await assert.rejects(hasty.deleteTopics({ topics: [topic] }), /does not host this topic-partition/);
      await hasty.disconnect();
    },
  },
  {
    name: 'admin: createTopics validated only, and invalid ones refused',
    run: async () => {
      const topic = unique('kafkajs-validate');
      await admin.createTopics({ validateOnly: true, waitForLeaders: false, topics: [{ topic }] });
      assert.ok(!(await admin.listTopics()).includes(topic));
      const refused = (one: { topic: string; numPartitions?: number; replicationFactor?: number }) =>
        admin.createTopics({ topics: [one] });
      const named = (type: string) => (error: { errors: { type: string }[] }) => error.errors[0]?.type === type;
      await assert.rejects(refused({ topic: 'no spaces' }), named('INVALID_TOPIC_EXCEPTION'));
      await assert.rejects(refused({ topic, numPartitions: 0 }), named('INVALID_PARTITIONS'));
      await assert.rejects(refused({ topic, replicationFactor: 3 }), named('INVALID_REPLICATION_FACTOR'));
    },
  },
  {
    name: 'admin: partitions added, never removed',
    run: async () => {
      const topic = await newTopic('grow', 2);
      await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] });
      await until('four partitions', async () => {
        const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
        return topics[0]?.partitions.length === 4;
      });
      const fewer = admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
      await assert.rejects(fewer, { type: 'INVALID_PARTITIONS' });
    },
  },
  {
    name: 'admin: configs given at creation, described, altered',
    run: async () => {
      const topic = unique('kafkajs-config');
      await admin.createTopics({ topics: [{ topic, configEntries: [{ name: 'retention.ms', value: '3600000' }] }] });
      const describe = async () => {
        const resources = [{ type: topicConfig, name: topic, configNames: ['retention.ms', 'max.message.bytes'] }];
        const { resources: found } = await admin.describeConfigs({ includeSynonyms: true, resources });
        return new Map(found[0]!.configEntries.map(entry => [entry.configName, entry]));
      };
      const before = await describe();
      assert.deepEqual([...before.keys()].sort(), ['max.message.bytes', 'retention.ms']);
      assert.equal(before.get('retention.ms')?.configValue, '3600000');
      assert.equal(before.get('retention.ms')?.configSource, kafkajs.ConfigSource.TOPIC_CONFIG);
      assert.notEqual(before.get('max.message.bytes')?.configSource, kafkajs.ConfigSource.TOPIC_CONFIG);
      const alter = (name: string, value: string) =>
        admin.alterConfigs({
          validateOnly: false,
          resources: [{ type: topicConfig, name: topic, configEntries: [{ name, value }] }],
        });
      await alter('max.message.bytes', '200000');
      await until('the new value', async () => {
        const after = await describe();
        // AlterConfigs replaces the whole set: what it does not name falls back to the default.
        return (
          after.get('max.message.bytes')?.configValue === '200000' && after.get('retention.ms')?.configSource !== 1
        );
      });
      await assert.rejects(alter('retention.ms', 'soon'), { type: 'INVALID_CONFIG' });
    },
  },
  {
    name: 'admin: cluster described',
    run: async () => {
      const cluster = await admin.describeCluster();
      assert.ok(cluster.clusterId.length > 0);
      assert.ok(cluster.brokers.some(broker => `${broker.host}:${broker.port}` === bootstrap));
      assert.equal(cluster.controller, cluster.brokers[0]?.nodeId);
    },
  },
  {
    name: 'admin: records deleted before an offset',
    run: async () => {
      const topic = await newTopic('trim');
      await produce(
        topic,
        Array.from({ length: 10 }, (_, i) => ({ value: `${i}` })),
      );
      // kafkajs looks for the leader before it asks for the topic's metadata; this asks first.
      await admin.fetchTopicOffsets(topic);
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '6' }] });
      const [offsets] = await admin.fetchTopicOffsets(topic);
      assert.deepEqual({ low: offsets?.low, high: offsets?.high }, { low: '6', high: '10' });
      assert.deepEqual((await read(topic, 4)).map(text), ['6', '7', '8', '9']);
      const past = admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '11' }] });
      await assert.rejects(past, /deleting records/i);
    },
  },
];

await runSuite([...recordChecks, ...adminChecks, ...groupChecks]);
