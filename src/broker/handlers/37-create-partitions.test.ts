import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { CreatePartitions } from '../../protocol/messages/37-create-partitions.ts';
import { Topics } from '../../storage/topics.ts';
import { createPartitions } from './37-create-partitions.ts';

let database: TestDatabase;
let topics: Topics;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());
beforeEach(async () => {
  await database.pool.query('DELETE FROM kafka.topics');
  topics = await Topics.load(database.pool);
  await topics.create({ name: 'a', partitionCount: 2, config: {} });
});

type Wanted = { name?: string; count?: number; assignments?: { brokerIds: number[] }[] | null };

const grow = async (wanted: Wanted[], version = 3, validateOnly = false) => {
  const request = {
    topics: wanted.map(each => ({ name: 'a', count: 4, assignments: null, ...each })),
    timeoutMs: 1000,
    validateOnly,
  };
  const { results } = await call(CreatePartitions, createPartitions, version, request, topicBroker(topics));
  return results.map(({ name, errorCode }) => [name, errorCode]);
};

test('in every version a topic grows', async () => {
  for (let version = 0; version <= 3; version++) {
    assert.deepEqual(await grow([{ count: 4 + version }], version), [['a', ErrorCode.NONE]]);
    assert.equal(topics.get('a')?.partitionCount, 4 + version);
  }
});

test('assignments are obeyed where they name this broker', async () => {
  assert.deepEqual(await grow([{ assignments: [{ brokerIds: [1] }, { brokerIds: [1] }] }]), [['a', ErrorCode.NONE]]);
  assert.equal(topics.get('a')?.partitionCount, 4);
});

test('what Kafka refuses is refused with Kafka’s code, and validateOnly changes nothing', async () => {
  const cases: [Wanted, ErrorCode][] = [
    [{ name: 'none' }, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
    [{ count: 2 }, ErrorCode.INVALID_PARTITIONS],
    [{ count: 1 }, ErrorCode.INVALID_PARTITIONS],
    [{ count: -1 }, ErrorCode.INVALID_PARTITIONS],
    [{ count: 2_147_483_647 }, ErrorCode.POLICY_VIOLATION],
    [{ assignments: [{ brokerIds: [1] }] }, ErrorCode.INVALID_REPLICA_ASSIGNMENT],
    [{ assignments: [{ brokerIds: [1] }, { brokerIds: [2] }] }, ErrorCode.INVALID_REPLICA_ASSIGNMENT],
    [{ assignments: [{ brokerIds: [1] }, { brokerIds: [] }] }, ErrorCode.INVALID_REPLICA_ASSIGNMENT],
  ];
  for (const [wanted, expected] of cases) {
    assert.deepEqual(await grow([wanted]), [[wanted.name ?? 'a', expected]], JSON.stringify(wanted));
  }
  assert.deepEqual(await grow([{ count: 9 }, { count: 9 }]), [['a', ErrorCode.INVALID_REQUEST]]);
  assert.deepEqual(await grow([{ count: 9 }], 3, true), [['a', ErrorCode.NONE]]);
  assert.equal(topics.get('a')?.partitionCount, 2);
});
