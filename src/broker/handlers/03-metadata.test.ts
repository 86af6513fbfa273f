import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { Metadata } from '../../protocol/messages/03-metadata.ts';
import { Topics } from '../../storage/topics.ts';
import type { BrokerContext } from '../context.ts';
import { metadata } from './03-metadata.ts';

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
  broker = topicBroker(topics, { numPartitions: 3 });
  await topics.create({ name: 'orders', partitionCount: 2, config: {} });
});

const ask = (version: number, names: string[] | null, rest: object = {}) =>
  call(
    Metadata,
    metadata,
    version,
    {
      topics: names === null ? null : names.map(name => ({ name, topicId: noUuid })),
      allowAutoTopicCreation: false,
      ...rest,
    },
    broker,
  );

test('in every version, the broker and the topics with their partitions', async () => {
  for (let version = 0; version <= 13; version++) {
    const answer = await ask(version, version === 0 ? [] : null);
    assert.deepEqual(answer.brokers, [{ nodeId: 1, host: 'broker.example', port: 9092, rack: null }]);
    assert.equal(answer.controllerId, version >= 1 ? 1 : -1);
    assert.equal(answer.clusterId, version >= 2 ? 'a-test-cluster' : null);
    assert.deepEqual(answer.topics, [
      {
        errorCode: 0,
        name: 'orders',
        topicId: version >= 10 ? topics.get('orders')!.uuid : noUuid,
        isInternal: false,
        partitions: [0, 1].map(partitionIndex => ({
          errorCode: 0,
          partitionIndex,
          leaderId: 1,
          leaderEpoch: version >= 7 ? 7 : -1,
          replicaNodes: [1],
          isrNodes: [1],
          offlineReplicas: [],
        })),
        topicAuthorizedOperations: -2_147_483_648,
      },
    ]);
  }
});

test('null is all topics and an empty list is none, but in version 0 empty is all', async () => {
  assert.equal((await ask(0, [])).topics.length, 1);
  assert.equal((await ask(1, [])).topics.length, 0);
  assert.equal((await ask(12, [])).topics.length, 0);
  assert.equal((await ask(12, null)).topics.length, 1);
});

test('unknown and invalid names, each once', async () => {
  const { topics: answers } = await ask(9, ['orders', 'nothing', 'nothing', 'no/name', '']);
  assert.deepEqual(
    answers.map(({ name, errorCode }) => [name, errorCode]),
    [
      ['orders', ErrorCode.NONE],
      ['nothing', ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
      ['no/name', ErrorCode.INVALID_TOPIC_EXCEPTION],
      ['', ErrorCode.INVALID_TOPIC_EXCEPTION],
    ],
  );
  assert.equal(topics.size, 1);
});

test('by id from version 12; before that an id makes the request invalid', async () => {
  const topicId = topics.get('orders')!.uuid;
  const unknown = '11111111-2222-3333-4444-555555555555';
  const byId = (version: number, ids: string[]) =>
    ask(version, null, { topics: ids.map(id => ({ name: version < 12 ? 'orders' : null, topicId: id })) });
  const { topics: answers } = await byId(12, [topicId, unknown]);
  assert.deepEqual(
    answers.map(each => [each.name, each.topicId, each.errorCode]),
    [
      ['orders', topicId, ErrorCode.NONE],
      [null, unknown, ErrorCode.UNKNOWN_TOPIC_ID],
    ],
  );
  assert.equal((await byId(10, [topicId])).topics[0]?.errorCode, ErrorCode.INVALID_REQUEST);
});

test('a topic is made on first use where the request and the setting allow it', async () => {
  const auto = { allowAutoTopicCreation: true };
  const [made] = (await ask(9, ['fresh'], auto)).topics;
  assert.equal(made?.errorCode, ErrorCode.NONE);
  assert.equal(made?.partitions.length, 3);
  // Before version 4 there is no such field: the topic is made.
  assert.equal((await ask(1, ['fresh-too'])).topics[0]?.errorCode, ErrorCode.NONE);
  assert.equal((await ask(9, ['no/name'], auto)).topics[0]?.errorCode, ErrorCode.INVALID_TOPIC_EXCEPTION);
  assert.deepEqual((await ask(9, null, auto)).topics.length, 3);
  broker = topicBroker(topics, { autoCreateTopicsEnable: false });
  assert.equal((await ask(9, ['never'], auto)).topics[0]?.errorCode, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
});

test('many clients asking at once for a new topic all get the same one', async () => {
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => ask(12, ['busy'], { allowAutoTopicCreation: true })),
  );
  const ids = new Set(answers.map(answer => answer.topics[0]?.topicId));
  assert.deepEqual([...ids], [topics.get('busy')!.uuid]);
  assert.ok(answers.every(answer => answer.topics[0]?.errorCode === ErrorCode.NONE));
});

test('a database that fails makes the new topic unavailable for now, not the whole answer', async () => {
  await database.pool.query('ALTER TABLE kafka.topics RENAME TO away');
  const { topics: answers } = await ask(9, ['orders', 'fresh'], { allowAutoTopicCreation: true });
  await database.pool.query('ALTER TABLE kafka.away RENAME TO topics');
  assert.deepEqual(
    answers.map(({ errorCode }) => errorCode),
    [ErrorCode.NONE, ErrorCode.LEADER_NOT_AVAILABLE],
  );
});

test('authorized operations are told where they are asked for', async () => {
  const asked = { includeTopicAuthorizedOperations: true, includeClusterAuthorizedOperations: true };
  const answer = await ask(9, ['orders'], asked);
  // As a Kafka broker without an authorizer answers.
  assert.equal(answer.topics[0]?.topicAuthorizedOperations, 3576);
  assert.equal(answer.clusterAuthorizedOperations, 8096);
  assert.equal((await ask(13, ['orders'], asked)).clusterAuthorizedOperations, -2_147_483_648);
});
