// OffsetCommit, OffsetFetch and OffsetDelete through the codec, in every version that differs.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { CoordinatorRig } from '../../../test/coordinator-rig.ts';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { nameOf } from '../../../test/group-rig.ts';
import { call } from '../../../test/handler-call.ts';
import { OffsetCommit } from '../../protocol/messages/08-offset-commit.ts';
import { OffsetFetch } from '../../protocol/messages/09-offset-fetch.ts';
import { OffsetDelete } from '../../protocol/messages/47-offset-delete.ts';
import { type Topic, Topics } from '../../storage/topics.ts';
import { offsetCommit } from './08-offset-commit.ts';
import { offsetFetch } from './09-offset-fetch.ts';
import { offsetDelete } from './47-offset-delete.ts';

let database: TestDatabase;
let topics: Topics;
let orders: Topic;
let rig: CoordinatorRig;
const noTopic = '11111111-2222-4333-8444-555555555555';

before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

beforeEach(async () => {
  await database.pool.query('TRUNCATE kafka.topics, kafka.consumer_groups CASCADE');
  topics = await Topics.load(database.pool);
  orders = await topics.create({ name: 'orders', partitionCount: 3, config: {} });
  await topics.create({ name: 'payments', partitionCount: 3, config: {} });
  rig = new CoordinatorRig(database.pool, topics);
  await rig.coordinator.start();
});

interface Wanted {
  readonly partitionIndex: number;
  readonly committedOffset: bigint;
  readonly committedLeaderEpoch?: number;
  readonly committedMetadata: string | null;
}

async function commit(
  version: number,
  name: string,
  partitions: Wanted[],
  change: { groupId?: string; generationIdOrMemberEpoch?: number } = {},
) {
  const topicId = topics.get(name)?.uuid ?? noTopic;
  const request = { groupId: 'g', memberId: '', topics: [{ name, topicId, partitions }], ...change };
  const answer = await call(OffsetCommit, offsetCommit, version, request, rig.broker);
  assert.equal(answer.topics.length, 1);
  assert.equal(answer.topics[0]!.name, version < 10 ? name : '');
  assert.equal(answer.topics[0]!.topicId, version < 10 ? '00000000-0000-0000-0000-000000000000' : topicId);
  return answer.topics[0]!.partitions.map(({ partitionIndex, errorCode }) => `${partitionIndex} ${nameOf(errorCode)}`);
}

async function fetchSingle(
  version: number,
  asked: { name: string; partitionIndexes: number[] }[] | null,
  groupId = 'g',
) {
  return call(OffsetFetch, offsetFetch, version, { groupId, topics: asked, groups: [] }, rig.broker);
}

const versions = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const plain = (partitionIndex: number, committedOffset: bigint) => ({
  partitionIndex,
  committedOffset,
  committedMetadata: null,
});

describe('OffsetCommit', () => {
  for (const version of versions(0, 10)) {
    test(`version ${version}`, async () => {
      const unknown = version < 10 ? 'UNKNOWN_TOPIC_OR_PARTITION' : 'UNKNOWN_TOPIC_ID';
      const noted = { ...plain(0, 7n), committedLeaderEpoch: 4, committedMetadata: 'note' };
      assert.deepEqual(await commit(version, 'orders', [noted, plain(1, 8n), plain(3, 1n), plain(-1, 1n)]), [
        '0 NONE',
        '1 NONE',
        '3 UNKNOWN_TOPIC_OR_PARTITION',
        '-1 UNKNOWN_TOPIC_OR_PARTITION',
      ]);
      assert.deepEqual(await commit(version, 'nothing', [plain(0, 1n)]), [`0 ${unknown}`]);
      const { rows } = await database.pool.query(
        `SELECT partition_id, committed_offset, leader_epoch, convert_from(metadata, 'UTF8') AS metadata
         FROM kafka.consumer_offsets ORDER BY 1`,
      );
      assert.deepEqual(rows, [
        { partition_id: 0, committed_offset: 7n, leader_epoch: version >= 6 ? 4 : -1, metadata: 'note' },
        { partition_id: 1, committed_offset: 8n, leader_epoch: -1, metadata: '' },
      ]);
    });
  }

  test('metadata too long is refused by itself; a NUL in it is taken', async () => {
    const long = { ...plain(0, 1n), committedMetadata: 'x'.repeat(4097) };
    const nul = { ...plain(1, 1n), committedMetadata: 'a\0b' };
    const fits = { ...plain(2, 1n), committedMetadata: 'x'.repeat(4096) };
    assert.deepEqual(await commit(8, 'orders', [long, nul, fits]), ['0 OFFSET_METADATA_TOO_LARGE', '1 NONE', '2 NONE']);
  });

  test('a generation of a group that does not exist', async () => {
    const change = { generationIdOrMemberEpoch: 3 };
    assert.deepEqual(await commit(8, 'orders', [plain(0, 1n)], change), ['0 ILLEGAL_GENERATION']);
    assert.deepEqual(await commit(9, 'orders', [plain(0, 1n)], change), ['0 GROUP_ID_NOT_FOUND']);
    assert.deepEqual(await commit(9, 'nothing', [plain(0, 1n)], change), ['0 UNKNOWN_TOPIC_OR_PARTITION']);
  });

  test('an empty group id is good for offsets', async () => {
    assert.deepEqual(await commit(8, 'orders', [plain(0, 1n)], { groupId: '' }), ['0 NONE']);
    const fetched = await fetchSingle(7, null, '');
    assert.equal(fetched.topics[0]?.partitions[0]?.committedOffset, 1n);
  });

  test('a topic deleted behind our back', async () => {
    await database.pool.query('DELETE FROM kafka.topics WHERE topic_id = $1', [orders.id]);
    assert.deepEqual(await commit(9, 'orders', [plain(0, 1n)]), ['0 UNKNOWN_TOPIC_OR_PARTITION']);
    assert.deepEqual(await commit(10, 'orders', [plain(0, 1n)]), ['0 UNKNOWN_TOPIC_ID']);
    assert.deepEqual(await commit(10, 'payments', [plain(0, 1n)]), ['0 NONE']);
  });
});

describe('OffsetFetch', () => {
  const found = (partitionIndex: number, committedOffset: bigint, committedLeaderEpoch: number) => ({
    partitionIndex,
    committedOffset,
    committedLeaderEpoch,
    metadata: committedOffset < 0n ? '' : 'note',
    errorCode: 0,
  });

  beforeEach(async () => {
    const noted = { ...plain(1, 7n), committedLeaderEpoch: 4, committedMetadata: 'note' };
    await commit(8, 'orders', [noted]);
    await commit(8, 'payments', [{ ...noted, partitionIndex: 2 }]);
    await commit(8, 'orders', [{ ...noted, committedOffset: 9n }], { groupId: 'h' });
  });

  for (const version of versions(0, 7)) {
    test(`version ${version}, one group`, async () => {
      const epoch = version >= 5 ? 4 : -1;
      const asked = [
        { name: 'orders', partitionIndexes: [0, 1, 99] },
        { name: 'nothing', partitionIndexes: [0] },
      ];
      const { errorCode, topics: answered } = await fetchSingle(version, asked);
      assert.equal(nameOf(errorCode), 'NONE');
      assert.deepEqual(answered, [
        { name: 'orders', partitions: [found(0, -1n, -1), found(1, 7n, epoch), found(99, -1n, -1)] },
        { name: 'nothing', partitions: [found(0, -1n, -1)] },
      ]);
      if (version < 2) return;
      const all = await fetchSingle(version, null);
      assert.deepEqual(all.topics, [
        { name: 'orders', partitions: [found(1, 7n, epoch)] },
        { name: 'payments', partitions: [found(2, 7n, epoch)] },
      ]);
    });
  }

  for (const version of versions(8, 10)) {
    test(`version ${version}, several groups`, async () => {
      const name = version < 10 ? 'orders' : '';
      const topicId = version < 10 ? '00000000-0000-0000-0000-000000000000' : orders.uuid;
      const ofOrders = { name: 'orders', topicId: orders.uuid, partitionIndexes: [1] };
      const unknown = { name: 'nothing', topicId: noTopic, partitionIndexes: [0] };
      const request = {
        requireStable: true,
        groups: [
          { groupId: 'g', topics: [ofOrders, unknown] },
          { groupId: 'h', topics: null },
          { groupId: 'unknown', topics: null },
          { groupId: 'bad\0', topics: null },
        ],
      };
      const { groups } = await call(OffsetFetch, offsetFetch, version, request, rig.broker);
      assert.deepEqual(
        groups.map(({ groupId, errorCode }) => `${groupId} ${nameOf(errorCode)}`),
        ['g NONE', 'h NONE', 'unknown NONE', 'bad\0 INVALID_GROUP_ID'],
      );
      assert.deepEqual(groups[0]!.topics[0], { name, topicId, partitions: [found(1, 7n, 4)] });
      const [nothing] = groups[0]!.topics[1]!.partitions;
      assert.equal(nothing!.committedOffset, -1n);
      assert.equal(nameOf(nothing!.errorCode), version < 10 ? 'NONE' : 'UNKNOWN_TOPIC_ID');
      assert.deepEqual(groups[1]!.topics, [{ name, topicId, partitions: [found(1, 9n, 4)] }]);
      assert.deepEqual(groups[2]!.topics, []);
    });
  }

  test('a coordinator that has stopped: an error for the group, or each partition where there is no place for it', async () => {
    await rig.coordinator.stop();
    const asked = [{ name: 'orders', partitionIndexes: [1] }];
    assert.equal(nameOf((await fetchSingle(2, asked)).errorCode), 'COORDINATOR_NOT_AVAILABLE');
    const { topics: answered } = await fetchSingle(1, asked);
    assert.equal(nameOf(answered[0]!.partitions[0]!.errorCode), 'COORDINATOR_NOT_AVAILABLE');
  });
});

test('OffsetDelete', async () => {
  await commit(8, 'orders', [plain(0, 1n), plain(1, 1n)]);
  const request = {
    groupId: 'g',
    topics: [
      { name: 'orders', partitions: [{ partitionIndex: 0 }, { partitionIndex: 2 }, { partitionIndex: 3 }] },
      { name: 'nothing', partitions: [{ partitionIndex: 0 }] },
    ],
  };
  const answer = await call(OffsetDelete, offsetDelete, 0, request, rig.broker);
  assert.deepEqual(
    answer.topics.map(({ name, partitions }) => [name, partitions.map(({ errorCode }) => nameOf(errorCode))]),
    [
      ['orders', ['NONE', 'NONE', 'UNKNOWN_TOPIC_OR_PARTITION']],
      ['nothing', ['UNKNOWN_TOPIC_OR_PARTITION']],
    ],
  );
  const { rows } = await database.pool.query('SELECT partition_id FROM kafka.consumer_offsets');
  assert.deepEqual(rows, [{ partition_id: 1 }]);
  const unknown = await call(OffsetDelete, offsetDelete, 0, { ...request, groupId: 'unknown' }, rig.broker);
  assert.equal(nameOf(unknown.errorCode), 'GROUP_ID_NOT_FOUND');
});
