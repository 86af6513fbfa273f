import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { CreateTopics } from '../../protocol/messages/19-create-topics.ts';
import { Topics } from '../../storage/topics.ts';
import type { BrokerContext } from '../context.ts';
import { createTopics } from './19-create-topics.ts';

const noUuid = '00000000-0000-0000-0000-000000000000';
let database: TestDatabase;
let topics: Topics;
let broker: BrokerContext;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());
beforeEach(async () => {
  await database.pool.query('DELETE FROM kafka.topics');
  topics = await Topics.load(database.pool);
  broker = topicBroker(topics, { numPartitions: 4 });
});

interface Wanted {
  name?: string;
  numPartitions?: number;
  replicationFactor?: number;
  assignments?: { partitionIndex: number; brokerIds: number[] }[];
  configs?: { name: string; value: string | null }[];
}

const create = (wanted: Wanted[], version = 7, validateOnly = false) =>
  call(
    CreateTopics,
    createTopics,
    version,
    {
      topics: wanted.map(each => ({
        name: 'a',
        numPartitions: -1,
        replicationFactor: -1,
        assignments: [],
        configs: [],
        ...each,
      })),
      validateOnly,
    },
    broker,
  );

test('in every version, a topic with its partitions and configs', async () => {
  for (let version = 0; version <= 7; version++) {
    const name = `v${version}`;
    const configs = [{ name: 'retention.ms', value: '1000' }];
    const [answer] = (await create([{ name, numPartitions: 3, replicationFactor: 1, configs }], version)).topics;
    const topic = topics.get(name)!;
    assert.equal(topic.partitionCount, 3);
    assert.deepEqual(topic.config, { 'retention.ms': '1000' });
    assert.equal(answer?.errorCode, ErrorCode.NONE);
    assert.equal(answer?.topicId, version >= 7 ? topic.uuid : noUuid);
    assert.equal(answer?.numPartitions, version >= 5 ? 3 : -1);
    assert.equal(answer?.replicationFactor, version >= 5 ? 1 : -1);
    const told = new Map(answer?.configs?.map(config => [config.name, config]));
    if (version < 5) continue;
    assert.deepEqual(told.get('retention.ms'), {
      name: 'retention.ms',
      value: '1000',
      readOnly: false,
      configSource: 1,
      isSensitive: false,
    });
    assert.equal(told.get('compression.type')?.value, 'uncompressed');
    assert.equal(told.get('compression.type')?.configSource, 5);
  }
});

test('-1 partitions are num.partitions', async () => {
  assert.equal((await create([{}])).topics[0]?.numPartitions, 4);
  assert.equal(topics.get('a')?.partitionCount, 4);
});

test('assignments to this broker are obeyed', async () => {
  const assignments = [1, 0].map(partitionIndex => ({ partitionIndex, brokerIds: [1] }));
  assert.equal((await create([{ assignments }])).topics[0]?.errorCode, ErrorCode.NONE);
  assert.equal(topics.get('a')?.partitionCount, 2);
});

test('what Kafka refuses is refused with Kafka’s code, and nothing is made', async () => {
  const cases: [Wanted, ErrorCode][] = [
    [{ name: '' }, ErrorCode.INVALID_TOPIC_EXCEPTION],
    [{ name: '..' }, ErrorCode.INVALID_TOPIC_EXCEPTION],
    [{ name: 'a/b' }, ErrorCode.INVALID_TOPIC_EXCEPTION],
    [{ name: 'x'.repeat(250) }, ErrorCode.INVALID_TOPIC_EXCEPTION],
    [{ numPartitions: 0 }, ErrorCode.INVALID_PARTITIONS],
    [{ numPartitions: -2 }, ErrorCode.INVALID_PARTITIONS],
    [{ replicationFactor: 0 }, ErrorCode.INVALID_REPLICATION_FACTOR],
    [{ replicationFactor: 2 }, ErrorCode.INVALID_REPLICATION_FACTOR],
    [{ configs: [{ name: 'retention.ms', value: null }] }, ErrorCode.INVALID_CONFIG],
    [{ configs: [{ name: 'retention.ms', value: 'x' }] }, ErrorCode.INVALID_CONFIG],
    [{ configs: [{ name: 'no.such.config', value: '1' }] }, ErrorCode.INVALID_CONFIG],
    [{ configs: [{ name: '__proto__', value: '1' }] }, ErrorCode.INVALID_CONFIG],
    [{ assignments: [{ partitionIndex: 0, brokerIds: [2] }] }, ErrorCode.INVALID_REPLICA_ASSIGNMENT],
    [{ assignments: [{ partitionIndex: 0, brokerIds: [] }] }, ErrorCode.INVALID_REPLICA_ASSIGNMENT],
    [{ assignments: [{ partitionIndex: 0, brokerIds: [1, 1] }] }, ErrorCode.INVALID_REPLICA_ASSIGNMENT],
    [{ assignments: [{ partitionIndex: 1, brokerIds: [1] }] }, ErrorCode.INVALID_REPLICA_ASSIGNMENT],
    [
      { assignments: [0, 0].map(partitionIndex => ({ partitionIndex, brokerIds: [1] })) },
      ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    ],
    [{ numPartitions: 1, assignments: [{ partitionIndex: 0, brokerIds: [1] }] }, ErrorCode.INVALID_REQUEST],
    [{ replicationFactor: 1, assignments: [{ partitionIndex: 0, brokerIds: [1] }] }, ErrorCode.INVALID_REQUEST],
    [{ numPartitions: 10_001 }, ErrorCode.POLICY_VIOLATION],
    [{ numPartitions: 2_147_483_647 }, ErrorCode.POLICY_VIOLATION],
  ];
  for (const [wanted, expected] of cases) {
    const { topics: answers } = await create([wanted]);
    assert.deepEqual(
      answers.map(({ errorCode }) => errorCode),
      [expected],
      JSON.stringify(wanted),
    );
    assert.ok(answers[0]?.errorMessage, JSON.stringify(wanted));
  }
  assert.equal(topics.size, 0);
});

test('each topic of a request has its own outcome; one named twice is not made', async () => {
  await create([{ name: 'there' }]);
  const { topics: answers } = await create([
    { name: 'twice' },
    { name: 'good' },
    { name: 'there' },
    { name: 'bad/name' },
    { name: 'twice' },
  ]);
  assert.deepEqual(
    answers.map(({ name, errorCode }) => [name, errorCode]),
    [
      ['good', ErrorCode.NONE],
      ['there', ErrorCode.TOPIC_ALREADY_EXISTS],
      ['bad/name', ErrorCode.INVALID_TOPIC_EXCEPTION],
      ['twice', ErrorCode.INVALID_REQUEST],
    ],
  );
  assert.equal(topics.get('twice'), undefined);
});

test('validateOnly makes nothing and finds the same faults', async () => {
  const { topics: answers } = await create([{ name: 'good' }, { name: 'bad', numPartitions: 0 }], 7, true);
  assert.deepEqual(
    answers.map(({ errorCode, numPartitions, topicId }) => [errorCode, numPartitions, topicId]),
    [
      [ErrorCode.NONE, 4, noUuid],
      [ErrorCode.INVALID_PARTITIONS, -1, noUuid],
    ],
  );
  assert.equal(topics.size, 0);
});

test('when Postgres refuses, the topic’s answer says so, and the next create works', async () => {
  await database.pool.query('ALTER TABLE kafka.partitions RENAME TO away');
  const { topics: answers } = await create([{}]);
  await database.pool.query('ALTER TABLE kafka.away RENAME TO partitions');
  assert.equal(answers[0]?.errorCode, ErrorCode.UNKNOWN_SERVER_ERROR);
  assert.equal((await create([{}])).topics[0]?.errorCode, ErrorCode.NONE);
});

test('when Postgres does not answer, the client is told that the outcome is open', async () => {
  await database.pool.query(`
    CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
    CREATE TRIGGER die BEFORE INSERT ON kafka.topics FOR EACH ROW EXECUTE FUNCTION die()`);
  const { topics: answers } = await create([{}]);
  await database.pool.query('DROP TRIGGER die ON kafka.topics; DROP FUNCTION die');
  assert.equal(answers[0]?.errorCode, ErrorCode.REQUEST_TIMED_OUT);
  assert.equal((await create([{}])).topics[0]?.errorCode, ErrorCode.NONE);
});
