import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { AlterConfigs } from '../../protocol/messages/33-alter-configs.ts';
import { IncrementalAlterConfigs } from '../../protocol/messages/44-incremental-alter-configs.ts';
import { type Topic, Topics } from '../../storage/topics.ts';
import { resource } from '../config-resources.ts';
import { alterConfigs } from './33-alter-configs.ts';
import { incrementalAlterConfigs } from './44-incremental-alter-configs.ts';

const [set, remove, append, subtract] = [0, 1, 2, 3];
let database: TestDatabase;
let topics: Topics;
let topic: Topic;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());
beforeEach(async () => {
  await database.pool.query('DELETE FROM kafka.topics');
  topics = await Topics.load(database.pool);
  topic = await topics.create({ name: 'a', partitionCount: 1, config: { 'retention.ms': '1', 'segment.ms': '60000' } });
});

type Change = readonly [name: string, configOperation: number, value: string | null];
interface Altered {
  readonly type?: number;
  readonly name?: string;
  readonly changes: readonly Change[];
}

async function alter(altered: readonly Altered[], { version = 1, validateOnly = false } = {}): Promise<number[]> {
  const resources = altered.map(({ type = resource.topic, name = 'a', changes }) => ({
    resourceType: type,
    resourceName: name,
    configs: changes.map(([config, configOperation, value]) => ({ name: config, configOperation, value })),
  }));
  const request = { resources, validateOnly };
  const { responses } = await call(
    IncrementalAlterConfigs,
    incrementalAlterConfigs,
    version,
    request,
    topicBroker(topics),
  );
  assert.deepEqual(
    responses.map(({ resourceName }) => resourceName),
    resources.map(({ resourceName }) => resourceName),
  );
  assert.ok(responses.every(({ errorCode, errorMessage }) => (errorCode === 0) === (errorMessage === null)));
  return responses.map(({ errorCode }) => errorCode);
}

async function replace(
  configs: [string, string | null][],
  { version = 2, name = 'a', type = resource.topic as number } = {},
) {
  const { responses } = await call(
    AlterConfigs,
    alterConfigs,
    version,
    {
      resources: [
        { resourceType: type, resourceName: name, configs: configs.map(([key, value]) => ({ name: key, value })) },
      ],
      validateOnly: false,
    },
    topicBroker(topics),
  );
  return responses[0]?.errorCode;
}

test('configs are set and deleted, the others stay', async () => {
  for (const version of [0, 1]) {
    const changes: Change[] = [
      ['retention.ms', set!, `${version + 2}`],
      ['segment.ms', remove!, null],
    ];
    assert.deepEqual(await alter([{ changes }], { version }), [ErrorCode.NONE]);
    assert.deepEqual(topic.config, { 'retention.ms': `${version + 2}` });
  }
});

test('lists are appended to and subtracted from, beginning with what is in force', async () => {
  const policy = async (operation: number, value: string) => {
    assert.deepEqual(await alter([{ changes: [['cleanup.policy', operation, value]] }]), [ErrorCode.NONE]);
    return topic.config['cleanup.policy'];
  };
  assert.equal(await policy(append!, 'compact'), 'delete,compact');
  assert.equal(await policy(append!, 'compact'), 'delete,compact');
  assert.equal(await policy(subtract!, 'delete'), 'compact');
  assert.deepEqual(await alter([{ changes: [['retention.ms', append!, '5']] }]), [ErrorCode.INVALID_CONFIG]);
  assert.deepEqual(await alter([{ changes: [['no.such.config', append!, '5']] }]), [ErrorCode.INVALID_CONFIG]);
});

test('a resource changes whole or not at all, each for itself', async () => {
  await topics.create({ name: 'b', partitionCount: 1, config: {} });
  const outcomes = await alter([
    {
      changes: [
        ['retention.ms', set!, '9'],
        ['segment.ms', set!, 'x'],
      ],
    },
    { name: 'b', changes: [['retention.ms', set!, '9']] },
  ]);
  assert.deepEqual(outcomes, [ErrorCode.INVALID_CONFIG, ErrorCode.NONE]);
  assert.equal(topic.config['retention.ms'], '1');
  assert.equal(topics.get('b')?.config['retention.ms'], '9');
});

test('what Kafka refuses is refused with Kafka’s code', async () => {
  const cases: [Altered, ErrorCode][] = [
    [{ changes: [['no.such.config', set!, '1']] }, ErrorCode.INVALID_CONFIG],
    [{ changes: [['__proto__', set!, '1']] }, ErrorCode.INVALID_CONFIG],
    [{ changes: [['retention.ms', set!, '-2']] }, ErrorCode.INVALID_CONFIG],
    [{ changes: [['retention.ms', set!, null]] }, ErrorCode.INVALID_REQUEST],
    [{ changes: [['retention.ms', 4, '1']] }, ErrorCode.INVALID_REQUEST],
    [
      {
        changes: [
          ['retention.ms', set!, '1'],
          ['retention.ms', remove!, null],
        ],
      },
      ErrorCode.INVALID_REQUEST,
    ],
    [{ name: 'none', changes: [] }, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
    [{ name: 'none', changes: [['retention.ms', set!, 'x']] }, ErrorCode.INVALID_CONFIG],
    [{ name: 'no/name', changes: [] }, ErrorCode.INVALID_TOPIC_EXCEPTION],
    [{ name: '', changes: [] }, ErrorCode.INVALID_REQUEST],
    [{ type: resource.broker, name: '1', changes: [['num.partitions', set!, '2']] }, ErrorCode.INVALID_REQUEST],
    [{ type: resource.broker, name: '', changes: [['num.partitions', set!, '2']] }, ErrorCode.INVALID_REQUEST],
    [{ type: resource.brokerLogger, name: '1', changes: [['root', set!, 'DEBUG']] }, ErrorCode.INVALID_REQUEST],
    [{ type: resource.group, name: 'g', changes: [] }, ErrorCode.INVALID_REQUEST],
    [{ type: 99, name: 'x', changes: [] }, ErrorCode.INVALID_REQUEST],
  ];
  for (const [altered, expected] of cases) {
    assert.deepEqual(await alter([altered]), [expected], JSON.stringify(altered));
  }
  const twice = { changes: [['retention.ms', set!, '9'] as const] };
  assert.deepEqual(await alter([twice, twice]), [ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_REQUEST]);
  assert.deepEqual(topic.config, { 'retention.ms': '1', 'segment.ms': '60000' });
});

test('validateOnly changes nothing and finds the same faults', async () => {
  const only = { validateOnly: true };
  assert.deepEqual(await alter([{ changes: [['retention.ms', set!, '9']] }], only), [ErrorCode.NONE]);
  assert.deepEqual(await alter([{ changes: [['retention.ms', set!, 'x']] }], only), [ErrorCode.INVALID_CONFIG]);
  assert.equal(topic.config['retention.ms'], '1');
});

test('AlterConfigs replaces all overrides', async () => {
  for (const version of [0, 1, 2]) {
    assert.equal(await replace([['retention.bytes', String(version)]], { version }), ErrorCode.NONE);
    assert.deepEqual(topic.config, { 'retention.bytes': String(version) });
  }
  assert.equal(await replace([['retention.ms', null]]), ErrorCode.INVALID_REQUEST);
  assert.equal(await replace([['retention.ms', 'x']]), ErrorCode.INVALID_CONFIG);
  assert.equal(await replace([], { name: 'none' }), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
  assert.equal(await replace([], { type: resource.broker, name: '1' }), ErrorCode.INVALID_REQUEST);
  assert.deepEqual(topic.config, { 'retention.bytes': '2' });
  assert.equal(await replace([]), ErrorCode.NONE);
  assert.deepEqual(topic.config, {});
});
