import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeConfigs } from '../../protocol/messages/32-describe-configs.ts';
import { topicConfigSpecs } from '../../storage/topic-config-table.ts';
import { Topics } from '../../storage/topics.ts';
import { resource } from '../config-resources.ts';
import type { BrokerContext } from '../context.ts';
import { describeConfigs } from './32-describe-configs.ts';

let database: TestDatabase;
let broker: BrokerContext;
before(async () => {
  database = await createDatabase();
  const topics = await Topics.load(database.pool);
  await topics.create({ name: 'orders', partitionCount: 1, config: { 'retention.ms': '1000' } });
  broker = topicBroker(topics, { logRetentionBytes: 5_000_000, numPartitions: 6 });
});
after(() => database.drop());

interface Asked {
  readonly version?: number;
  readonly keys?: string[] | null;
  readonly details?: boolean;
}

async function ask(
  resourceType: number,
  resourceName: string,
  { version = 4, keys = null, details = true }: Asked = {},
) {
  const { results } = await call(
    DescribeConfigs,
    describeConfigs,
    version,
    {
      resources: [{ resourceType, resourceName, configurationKeys: keys }],
      includeSynonyms: details,
      includeDocumentation: details,
    },
    broker,
  );
  const [result] = results;
  return { ...result!, config: new Map(result!.configs.map(config => [config.name, config])) };
}

test('a topic’s configs, all of Kafka’s, in every version', async () => {
  for (let version = 0; version <= 4; version++) {
    const { errorCode, configs, config } = await ask(resource.topic, 'orders', { version });
    assert.equal(errorCode, ErrorCode.NONE);
    assert.deepEqual(
      configs.map(({ name }) => name),
      topicConfigSpecs.map(({ name }) => name),
    );
    assert.equal(config.get('retention.ms')?.value, '1000');
    assert.equal(config.get('retention.ms')?.isDefault, false);
    assert.equal(config.get('segment.ms')?.value, '86400000');
  }
});

test('sources, synonyms, types and documentation', async () => {
  const { config } = await ask(resource.topic, 'orders');
  const retention = config.get('retention.ms')!;
  assert.deepEqual(retention.synonyms, [
    { name: 'retention.ms', value: '1000', source: 1 },
    { name: 'log.retention.ms', value: '604800000', source: 5 },
  ]);
  assert.deepEqual([retention.configSource, retention.configType, retention.readOnly], [1, 5, false]);
  assert.match(retention.documentation!, /segment/);
  assert.deepEqual(config.get('retention.bytes')!.synonyms, [
    { name: 'log.retention.bytes', value: '5000000', source: 4 },
    { name: 'log.retention.bytes', value: '-1', source: 5 },
  ]);
  assert.equal(config.get('retention.bytes')!.configSource, 4);
  assert.equal(config.get('cleanup.policy')!.configType, 7);
  assert.match(config.get('preallocate')!.documentation!, /without effect/);
  const short = (await ask(resource.topic, 'orders', { details: false })).config.get('retention.ms')!;
  assert.deepEqual([short.synonyms, short.documentation], [[], null]);
});

test('only the configs asked for', async () => {
  const { configs } = await ask(resource.topic, 'orders', { keys: ['retention.ms', 'no.such.config'] });
  assert.deepEqual(
    configs.map(({ name }) => name),
    ['retention.ms'],
  );
  assert.ok((await ask(resource.topic, 'orders', { keys: [] })).configs.length > 20);
});

test('the broker’s configs under Kafka’s names, read-only', async () => {
  const { config, configs } = await ask(resource.broker, '1');
  const value = (name: string) => config.get(name)?.value;
  assert.equal(value('num.partitions'), '6');
  assert.equal(config.get('num.partitions')?.configSource, 4);
  assert.equal(config.get('num.partitions')?.configType, 3);
  assert.equal(value('auto.create.topics.enable'), 'true');
  assert.equal(config.get('auto.create.topics.enable')?.configSource, 5);
  assert.equal(value('advertised.listeners'), 'PLAINTEXT://broker.example:9092');
  assert.equal(value('listeners'), 'PLAINTEXT://127.0.0.1:9092');
  assert.equal(value('log.retention.bytes'), '5000000');
  assert.equal(value('log.roll.ms'), '86400000');
  assert.equal(value('message.max.bytes'), '1048588');
  assert.equal(value('default.replication.factor'), '1');
  assert.ok(configs.every(({ readOnly, isSensitive }) => readOnly && !isSensitive));
  assert.equal(new Set(configs.map(({ name }) => name)).size, configs.length);
  assert.deepEqual((await ask(resource.broker, '')).configs, []);
});

test('what there is not', async () => {
  const code = async (type: number, name: string) => (await ask(type, name)).errorCode;
  assert.equal(await code(resource.topic, 'none'), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
  assert.equal(await code(resource.topic, 'no/name'), ErrorCode.INVALID_TOPIC_EXCEPTION);
  assert.equal(await code(resource.broker, '2'), ErrorCode.INVALID_REQUEST);
  assert.equal(await code(resource.broker, 'x'), ErrorCode.INVALID_REQUEST);
  assert.equal(await code(resource.brokerLogger, '1'), ErrorCode.INVALID_REQUEST);
  assert.equal(await code(resource.group, 'g'), ErrorCode.NONE);
  assert.equal(await code(resource.group, ''), ErrorCode.INVALID_REQUEST);
  assert.equal(await code(99, 'x'), ErrorCode.INVALID_REQUEST);
});
