// @platformatic/kafka. Usage: suite.ts HOST:PORT [part of a check's name]

import assert from 'node:assert/strict';
import {
  Admin,
  type CompressionAlgorithmValue,
  ConfigResourceTypes,
  ConfigSources,
  Consumer,
  compressionsAlgorithms,
  FindCoordinatorKeyTypes,
  IncrementalAlterConfigOperationTypes,
  type Message,
  MessagesStreamModes,
  type MessageToProduce,
  Producer,
  type ResponseError,
} from '@platformatic/kafka';
import { bootstrap, type Check, runSuite, unique, until } from '../suite.ts';
import { groupChecks } from './groups.ts';
import { identity } from './member.ts';

const admin = new Admin(identity(bootstrap));

type Draft = Omit<MessageToProduce, 'topic'>;

async function newTopic(word: string, partitions = 1): Promise<string> {
  const topic = unique(`platformatic-${word}`);
  const [created] = await admin.createTopics({ topics: [topic], partitions, replicas: 1 });
  assert.equal(created?.name, topic);
  assert.equal(created?.partitions, partitions);
  return topic;
}

async function produce(topic: string, drafts: Draft[], compression: CompressionAlgorithmValue = 'none', acks = -1) {
  const producer = new Producer(identity(bootstrap));
  try {
    return await producer.send({ messages: drafts.map(draft => ({ ...draft, topic })), compression, acks });
  } finally {
    await producer.close();
  }
}

async function read(topic: string, count: number): Promise<Message[]> {
  const consumer = new Consumer({ ...identity(bootstrap), groupId: unique('platformatic-reader'), maxWaitTime: 200 });
  const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST });
  const messages: Message[] = [];
  stream.on('data', message => messages.push(message));
  await until(`${count} records of ${topic}`, () => messages.length >= count);
  await stream.close();
  await consumer.close(true);
  return messages;
}

const text = (message: Message) => String(message.value);

/** The error names of a response, wherever the library has put them. */
const failsWith = (name: string) => (error: ResponseError) => {
  assert.ok(error.findBy('apiId', name), `${name} expected, not ${error.errors?.map(one => one.message)}`);
  return true;
};

const codec = (name: CompressionAlgorithmValue): Check => ({
  name: `produce and consume ${name}`,
  ...(compressionsAlgorithms[name].available ? {} : { skip: `this version of Node has no ${name}` }),
  run: async () => {
    const topic = await newTopic(name);
    const sent = Array.from({ length: 2000 }, (_, i) => `${i} ${'ab'.repeat(i % 50)} żółć`);
    const drafts = sent.map(value => ({ value: Buffer.from(value) }));
    const result = await produce(topic, drafts, name);
    assert.deepEqual(result.offsets, [{ topic, partition: 0, offset: 0n }]);
    assert.deepEqual((await read(topic, sent.length)).map(text), sent);
  },
});

const acks = (level: number): Check => ({
  name: `acks=${level}`,
  run: async () => {
    const topic = await newTopic('acks');
    await produce(topic, [{ value: Buffer.from('a') }, { value: Buffer.from('b') }], 'none', level);
    assert.deepEqual((await read(topic, 2)).map(text), ['a', 'b']);
  },
});

const recordChecks: Check[] = [
  codec('none'),
  codec('gzip'),
  codec('snappy'),
  codec('lz4'),
  codec('zstd'),
  acks(0),
  acks(1),
  acks(-1),
  {
    name: 'idempotent producer',
    run: async () => {
      const topic = await newTopic('idempotent');
      const producer = new Producer({ ...identity(bootstrap), idempotent: true });
      const sent: string[] = [];
      for (let i = 0; i < 20; i += 1) {
        sent.push(`${i} a`, `${i} b`);
        await producer.send({
          messages: [`${i} a`, `${i} b`].map(value => ({ topic, value: Buffer.from(value) })),
          acks: -1,
        });
      }
      await producer.close();
      assert.deepEqual((await read(topic, sent.length)).map(text), sent);
    },
  },
  {
    name: 'keys, null and empty keys and values',
    run: async () => {
      const topic = await newTopic('nulls');
      const k = Buffer.from('k');
      const empty = Buffer.alloc(0);
      const bytes = Buffer.from([0, 255, 128]);
      const pairs: [Buffer | null, Buffer | null][] = [
        [k, k],
        [null, k],
        [k, null],
        [null, null],
        [empty, empty],
        [bytes, bytes],
      ];
      // The types know no null; the encoder does.
      const drafts = pairs.map(([key, value]) => ({ key, value }) as unknown as Draft);
      await produce(
        topic,
        drafts.map(draft => ({ ...draft, partition: 0 })),
      );
      const found = (await read(topic, pairs.length)).map(({ key, value }) => [key ?? null, value ?? null]);
      assert.deepEqual(found, pairs);
    },
  },
  {
    name: 'headers in order, duplicates and nulls',
    run: async () => {
      const topic = await newTopic('headers');
      const headers: [Buffer, Buffer | null][] = [
        [Buffer.from('b'), Buffer.from('2')],
        [Buffer.from('a'), Buffer.from('1')],
        [Buffer.from('b'), Buffer.from('3')],
        [Buffer.from('none'), null],
        [Buffer.from('empty'), Buffer.alloc(0)],
      ];
      await produce(topic, [{ value: Buffer.from('x'), headers: new Map(headers) as Map<Buffer, Buffer> }]);
      const [message] = await read(topic, 1);
      assert.deepEqual(
        [...message!.headers.entries()].map(([name, value]) => [name, value ?? null]),
        headers,
      );
    },
  },
  {
    name: 'a record of 1 MB, and one over the limit refused',
    run: async () => {
      const topic = await newTopic('large');
      const value = Buffer.alloc(1_048_000, 'Millrace ');
      await produce(topic, [{ value }]);
      const [message] = await read(topic, 1);
      assert.ok(message?.value.equals(value));
      const refused = produce(topic, [{ value: Buffer.alloc(2_000_000, 'x') }]);
      await assert.rejects(refused, failsWith('MESSAGE_TOO_LARGE'));
    },
  },
  {
    name: 'timestamps as given, days apart in one batch',
    run: async () => {
      const topic = await newTopic('times');
      // The library writes a difference of 2^31 ms or more wrongly.
      const day = 86_400_000n;
      const last = BigInt(Date.now());
      const timestamps = [last - 20n * day, last, last - 10n * day];
      await produce(
        topic,
        timestamps.map(timestamp => ({ value: Buffer.from('x'), timestamp })),
      );
      assert.deepEqual(
        (await read(topic, 3)).map(message => message.timestamp),
        timestamps,
      );
    },
  },
];

const alter = (topic: string, name: string, value: string | null) =>
  admin.incrementalAlterConfigs({
    resources: [
      {
        resourceType: ConfigResourceTypes.TOPIC,
        resourceName: topic,
        configs: [
          value === null
            ? { name, configOperation: IncrementalAlterConfigOperationTypes.DELETE }
            : { name, configOperation: IncrementalAlterConfigOperationTypes.SET, value },
        ],
      },
    ],
  });

async function describe(topic: string, name: string) {
  const resources = [{ resourceType: ConfigResourceTypes.TOPIC, resourceName: topic, configurationKeys: [name] }];
  const [found] = await admin.describeConfigs({ resources, includeSynonyms: true, includeDocumentation: true });
  return found!.configs[0]!;
}

const adminChecks: Check[] = [
  {
    name: 'admin: topics created, listed, described, deleted',
    run: async () => {
      const topic = await newTopic('admin', 5);
      await assert.rejects(admin.createTopics({ topics: [topic] }), failsWith('TOPIC_ALREADY_EXISTS'));
      assert.ok((await admin.listTopics()).includes(topic));
      const metadata = await admin.metadata({ topics: [topic] });
      assert.equal(metadata.topics.get(topic)?.partitionsCount, 5);
      assert.match(metadata.topics.get(topic)!.id, /^[0-9a-f-]{36}$/);
      assert.ok(metadata.id.length > 0);
      assert.ok([...metadata.brokers.values()].some(broker => `${broker.host}:${broker.port}` === bootstrap));
      await admin.deleteTopics({ topics: [topic] });
      await until('the topic is gone', async () => !(await admin.listTopics()).includes(topic));
      await assert.rejects(admin.deleteTopics({ topics: [topic] }), failsWith('UNKNOWN_TOPIC_OR_PARTITION'));
    },
  },
  {
    name: 'admin: partitions added',
    run: async () => {
      const topic = await newTopic('grow', 2);
      await admin.createPartitions({ topics: [{ name: topic, count: 4 }] });
      await until('four partitions', async () => {
        const metadata = await admin.metadata({ topics: [topic], forceUpdate: true });
        return metadata.topics.get(topic)?.partitionsCount === 4;
      });
    },
  },
  {
    name: 'admin: configs described, set, reset, refused',
    run: async () => {
      const topic = unique('platformatic-config');
      await admin.createTopics({ topics: [topic], configs: [{ name: 'retention.ms', value: '3600000' }] });
      const initial = await describe(topic, 'retention.ms');
      assert.equal(initial.value, '3600000');
      assert.equal(initial.configSource, ConfigSources.TOPIC_CONFIG);
      assert.equal(initial.synonyms[0]?.name, 'retention.ms');
      assert.ok((initial.documentation ?? '').length > 0);
      await alter(topic, 'retention.ms', '7200000');
      await until('the new value', async () => (await describe(topic, 'retention.ms')).value === '7200000');
      await alter(topic, 'retention.ms', null);
      const isDefault = async () => (await describe(topic, 'retention.ms')).configSource !== ConfigSources.TOPIC_CONFIG;
      await until('the default', isDefault);
      await assert.rejects(alter(topic, 'retention.ms', 'soon'), failsWith('INVALID_CONFIG'));
      await assert.rejects(alter(topic, 'no.such.config', '1'), failsWith('INVALID_CONFIG'));
    },
  },
  {
    name: 'admin: offsets listed and records deleted',
    run: async () => {
      const topic = await newTopic('trim');
      // What is much older may fall to retention at any time.
      const minuteAgo = BigInt(Date.now() - 60_000);
      await produce(
        topic,
        Array.from({ length: 10 }, (_, i) => ({ value: Buffer.from(`${i}`), timestamp: minuteAgo + BigInt(i) })),
      );
      const at = async (timestamp: bigint) => {
        const [found] = await admin.listOffsets({
          topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }],
        });
        return found!.partitions[0]!;
      };
      assert.equal((await at(-1n)).offset, 10n);
      const found = await at(minuteAgo + 4n);
      assert.deepEqual([found.timestamp, found.offset], [minuteAgo + 4n, 4n]);
      assert.ok(found.leaderEpoch >= 0);
      const [deleted] = await admin.deleteRecords({
        topics: [{ name: topic, partitions: [{ partition: 0, offset: 6n }] }],
      });
      assert.deepEqual(deleted?.partitions, [{ partition: 0, lowWatermark: 6n }]);
      assert.equal((await at(-2n)).offset, 6n);
      assert.deepEqual((await read(topic, 4)).map(text), ['6', '7', '8', '9']);
      const past = admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 11n }] }] });
      await assert.rejects(past, failsWith('OFFSET_OUT_OF_RANGE'));
    },
  },
  {
    name: 'admin: coordinator and log directories',
    run: async () => {
      const topic = await newTopic('dirs');
      await produce(topic, [{ value: Buffer.alloc(10_000, 'x') }]);
      const [coordinator] = await admin.findCoordinator({ keyType: FindCoordinatorKeyTypes.GROUP, keys: ['any'] });
      assert.equal(`${coordinator?.host}:${coordinator?.port}`, bootstrap);
      const [broker] = await admin.describeLogDirs({ topics: [{ name: topic, partitions: [0] }] });
      const found = broker?.results.flatMap(result => result.topics).find(one => one.name === topic);
      assert.ok(found!.partitions[0]!.partitionSize >= 10_000n);
    },
  },
];

await runSuite([...recordChecks, ...adminChecks, ...groupChecks]);
