import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeTopicPartitions } from '../../protocol/messages/75-describe-topic-partitions.ts';
import { Topics } from '../../storage/topics.ts';
import { describeTopicPartitions } from './75-describe-topic-partitions.ts';

const sizes = { c: 4, a: 3, 'b.1': 1, B: 2 };
let database: TestDatabase;
let topics: Topics;
before(async () => {
  database = await createDatabase();
  topics = await Topics.load(database.pool);
  for (const [name, partitionCount] of Object.entries(sizes)) await topics.create({ name, partitionCount, config: {} });
});
after(() => database.drop());

interface Cursor {
  readonly topicName: string;
  readonly partitionIndex: number;
}
const ask = (names: string[], responsePartitionLimit = 2000, cursor: Cursor | null = null) =>
  call(
    DescribeTopicPartitions,
    describeTopicPartitions,
    0,
    { topics: names.map(name => ({ name })), responsePartitionLimit, cursor },
    topicBroker(topics),
  );
const shape = (answer: Awaited<ReturnType<typeof ask>>) =>
  answer.topics.map(({ name, partitions }) => [name, partitions.map(({ partitionIndex }) => partitionIndex)]);

test('all topics in the order of their names, or those asked for', async () => {
  assert.deepEqual(shape(await ask([])), [
    ['B', [0, 1]],
    ['a', [0, 1, 2]],
    ['b.1', [0]],
    ['c', [0, 1, 2, 3]],
  ]);
  const answer = await ask(['c', 'a', 'a']);
  assert.deepEqual(shape(answer), [
    ['a', [0, 1, 2]],
    ['c', [0, 1, 2, 3]],
  ]);
  assert.equal(answer.nextCursor, null);
  assert.deepEqual(answer.topics[0]?.partitions[0], {
    errorCode: 0,
    partitionIndex: 0,
    leaderId: 1,
    leaderEpoch: 7,
    replicaNodes: [1],
    isrNodes: [1],
    eligibleLeaderReplicas: [],
    lastKnownElr: [],
    offlineReplicas: [],
  });
  assert.equal(answer.topics[0]?.topicId, topics.get('a')!.uuid);
  assert.equal(answer.topics[0]?.topicAuthorizedOperations, 3576);
});

test('with any limit, following the cursor gives every partition once', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: -1, max: 12 }), async limit => {
      const found: string[] = [];
      let cursor: Cursor | null = null;
      do {
        const answer: Awaited<ReturnType<typeof ask>> = await ask([], limit, cursor);
        const partitions = answer.topics.flatMap(topic =>
          topic.partitions.map(({ partitionIndex }) => `${topic.name} ${partitionIndex}`),
        );
        assert.ok(partitions.length <= Math.max(1, limit));
        found.push(...partitions);
        cursor = answer.nextCursor;
      } while (cursor !== null);
      assert.equal(found.length, 10);
      assert.equal(new Set(found).size, 10);
    }),
    { numRuns: 30 },
  );
});

test('unknown and invalid names have their codes', async () => {
  const { topics: answers } = await ask(['a', 'none', 'no/name', 'c']);
  assert.deepEqual(
    answers.map(({ name, errorCode }) => [name, errorCode]),
    [
      ['a', ErrorCode.NONE],
      ['c', ErrorCode.NONE],
      ['no/name', ErrorCode.INVALID_TOPIC_EXCEPTION],
      ['none', ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
    ],
  );
  const short = await ask(['a', 'none', 'no/name', 'c'], 7);
  assert.equal(short.topics.length, 2);
  assert.deepEqual(short.nextCursor, { topicName: 'no/name', partitionIndex: 0 });
});

test('a cursor must be a topic of the request and no negative partition', async () => {
  const codes = async (names: string[], cursor: Cursor) =>
    (await ask(names, 10, cursor)).topics.map(({ errorCode }) => errorCode);
  assert.deepEqual(await codes(['a', 'c'], { topicName: 'b.1', partitionIndex: 0 }), [42, 42]);
  assert.deepEqual(await codes(['a'], { topicName: 'a', partitionIndex: -1 }), [42]);
  assert.deepEqual(shape(await ask(['a', 'c'], 10, { topicName: 'c', partitionIndex: 2 })), [['c', [2, 3]]]);
  // All topics, and the cursor's has been deleted in the meantime.
  assert.deepEqual(shape(await ask([], 10, { topicName: 'bb', partitionIndex: 5 })), [['c', [0, 1, 2, 3]]]);
  assert.deepEqual(shape(await ask(['a'], 10, { topicName: 'a', partitionIndex: 99 })), [['a', []]]);
});
