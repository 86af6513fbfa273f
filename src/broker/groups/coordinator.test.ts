import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type pg from 'pg';
import { CoordinatorRig } from '../../../test/coordinator-rig.ts';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { nameOf, subscription } from '../../../test/group-rig.ts';
import { openPool } from '../../postgres/pool.ts';
import type { CommittedOffset } from '../../storage/offsets.ts';
import { type Topic, Topics } from '../../storage/topics.ts';
import type { JoinAnswer, JoinRequest } from './requests.ts';

let database: TestDatabase;
let topics: Topics;
let orders: Topic;
let payments: Topic;
let rig: CoordinatorRig;

before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

beforeEach(async () => {
  await database.pool.query('TRUNCATE kafka.topics, kafka.consumer_groups CASCADE');
  topics = await Topics.load(database.pool);
  orders = await topics.create({ name: 'orders', partitionCount: 4, config: {} });
  payments = await topics.create({ name: 'payments', partitionCount: 4, config: {} });
  rig = new CoordinatorRig(database.pool, topics);
  await rig.coordinator.start();
});

const client = { clientId: 'app', clientHost: '127.0.0.1' };

function request(change: Partial<JoinRequest> = {}): JoinRequest {
  return {
    sessionTimeoutMs: 10_000,
    rebalanceTimeoutMs: 60_000,
    memberId: '',
    groupInstanceId: null,
    protocolType: 'consumer',
    protocols: [{ name: 'range', metadata: subscription('orders') }],
    reason: null,
    ...change,
  };
}

function join(groupId: string, change: Partial<JoinRequest> = {}, by = rig): Promise<JoinAnswer> {
  return by.coordinator.join(groupId, request(change), client, { memberIdFirst: false, skipsAssignment: true });
}

async function member(groupId: string, change: Partial<JoinRequest> = {}): Promise<JoinAnswer> {
  const joined = await rig.finish(join(groupId, change));
  assert.equal(nameOf(joined.errorCode), 'NONE');
  const synced = await rig.finish(sync(groupId, joined, 'mine'));
  assert.equal(nameOf(synced.errorCode), 'NONE');
  return joined;
}

function sync(groupId: string, { memberId, generationId }: JoinAnswer, assignment: string, by = rig) {
  return by.coordinator.sync(groupId, {
    memberId,
    generationId,
    groupInstanceId: null,
    protocolType: null,
    protocolName: null,
    assignments: [{ memberId, assignment: Buffer.from(assignment) }],
  });
}

async function commit(
  groupId: string,
  offset: number,
  { memberId = '', generationId = -1, topic = orders, knowsGroupIdNotFound = true, by = rig } = {},
): Promise<string> {
  const committed: CommittedOffset = {
    topicId: topic.id,
    partition: 0,
    offset: BigInt(offset),
    leaderEpoch: -1,
    metadata: '',
  };
  const { errorCode, goneTopics } = await by.coordinator.commitOffsets(
    { groupId, memberId, generationId, groupInstanceId: null, knowsGroupIdNotFound },
    [committed],
  );
  return goneTopics.size > 0 ? 'gone' : nameOf(errorCode);
}

async function fetched(groupId: string, requireStable = false): Promise<bigint[] | string> {
  const found = await rig.coordinator.fetchOffsets([{ groupId, topicIds: null }], requireStable);
  const { errorCode, offsets } = found.get(groupId)!;
  return errorCode === 0 ? offsets.map(({ offset }) => offset) : nameOf(errorCode);
}

async function storedGroups(): Promise<string[]> {
  const { rows } = await database.pool.query('SELECT group_id FROM kafka.consumer_groups ORDER BY 1');
  return rows.map(row => row.group_id);
}

async function states(groupIds: string[]): Promise<string[]> {
  const described = await rig.coordinator.describe(groupIds);
  return described.map(({ state, errorCode, protocolType }) => `${state} ${protocolType} ${nameOf(errorCode)}`);
}

async function holding(sql: string, work: () => Promise<void>): Promise<void> {
  const other: pg.PoolClient = await database.pool.connect();
  try {
    await other.query('BEGIN');
    await other.query(sql);
    await work();
    await other.query('ROLLBACK');
  } finally {
    other.release();
  }
}

describe('members', () => {
  test('go on over a restart in the same generation, with a full session', async () => {
    const joined = await member('g');
    const { memberId, generationId } = joined;
    assert.equal(await commit('g', 5, { memberId, generationId }), 'NONE');
    await rig.coordinator.stop();

    const next = new CoordinatorRig(database.pool, topics);
    const identity = { memberId, generationId, groupInstanceId: null };
    assert.equal(nameOf(next.coordinator.heartbeat('g', identity)), 'NONE'); // nobody is turned away while loading
    assert.equal(await commit('g', 6, { memberId, generationId, by: next }), 'COORDINATOR_LOAD_IN_PROGRESS');
    await next.coordinator.start();
    await next.clock.advance(9_999);
    assert.equal(nameOf(next.coordinator.heartbeat('g', identity)), 'NONE');
    assert.equal((await next.finish(sync('g', joined, '', next))).assignment.toString(), 'mine');
    assert.equal(await commit('g', 6, { memberId, generationId, by: next }), 'NONE');
    await next.clock.advance(10_000);
    assert.equal(nameOf(next.coordinator.heartbeat('g', identity)), 'UNKNOWN_MEMBER_ID');
    await next.coordinator.stop();
  });

  test('of an empty group: its generation goes on, even over a restart, as long as it has offsets', async () => {
    for (let generation = 1; generation < 6; generation += 2) {
      const { memberId, generationId } = await member('g');
      assert.equal(generationId, generation);
      assert.equal(await commit('g', 5, { memberId, generationId }), 'NONE');
      const left = rig.coordinator.leave('g', [{ memberId, groupInstanceId: null, reason: null }]);
      assert.deepEqual(left, { errorCode: 0, memberErrors: [0] });
      if (generation === 1) {
        await rig.coordinator.stop();
        rig = new CoordinatorRig(database.pool, topics);
        await rig.coordinator.start();
      }
    }
  });

  test('of an empty group without offsets: they are listed until unused groups are looked for, and can be deleted', async () => {
    const { memberId } = await member('g');
    rig.coordinator.leave('g', [{ memberId, groupInstanceId: null, reason: null }]);
    await rig.until(async () => (await rig.metric('millrace_groups')) === 0);
    assert.deepEqual(await storedGroups(), ['g']);
    assert.deepEqual([...(await rig.coordinator.deleteGroups(['g'])).values()].map(nameOf), ['NONE']);
    assert.deepEqual(await states(['g']), ['Dead  GROUP_ID_NOT_FOUND']);
    assert.equal((await member('g')).generationId, 1);
  });

  test('that wait are answered when the coordinator stops, and what they were is not lost', async () => {
    const { memberId } = await member('g');
    const waiting = [join('g', { groupInstanceId: 'fixed' }), join('other')];
    await rig.until(async () => (await rig.metric('millrace_groups', 'PreparingRebalance')) === 1);
    const leading = await rig.finish(waiting[1]!);
    const another = join('other');
    await rig.coordinator.stop();
    await rig.coordinator.stop();
    assert.equal(nameOf((await waiting[0]!).errorCode), 'COORDINATOR_NOT_AVAILABLE');
    assert.equal(nameOf((await another).errorCode), 'COORDINATOR_NOT_AVAILABLE');
    assert.equal(nameOf((await sync('other', leading, '')).errorCode), 'COORDINATOR_NOT_AVAILABLE');
    assert.equal(nameOf((await join('g')).errorCode), 'COORDINATOR_NOT_AVAILABLE');
    assert.equal(rig.clock.pending, 0);
    const { rows } = await database.pool.query('SELECT members FROM kafka.consumer_groups');
    assert.equal(rows[0].members[0].member_id, memberId);
  });

  test('that join at the same moment come into one group', async () => {
    const answers = await rig.finish(Promise.all(Array.from({ length: 20 }, () => join('g'))));
    assert.equal(new Set(answers.map(({ leader }) => leader)).size, 1);
    assert.equal(await rig.metric('millrace_group_members'), 20);
  });
});

describe('requests are refused', () => {
  test('before the start, after the stop, and a coordinator that never started can stop', async () => {
    const fresh = new CoordinatorRig(database.pool, topics);
    assert.equal(nameOf((await join('g', {}, fresh)).errorCode), 'COORDINATOR_LOAD_IN_PROGRESS');
    await fresh.coordinator.stop();
    await fresh.coordinator.start();
    assert.equal(nameOf((await join('g', {}, fresh)).errorCode), 'COORDINATOR_NOT_AVAILABLE');
    const { groups, errorCode } = await fresh.coordinator.list();
    assert.deepEqual([groups, nameOf(errorCode)], [[], 'COORDINATOR_NOT_AVAILABLE']);
  });

  test('with impossible names and timeouts', async () => {
    const refused = async (groupId: string, change: Partial<JoinRequest>) =>
      nameOf((await join(groupId, change)).errorCode);
    assert.equal(await refused('', {}), 'INVALID_GROUP_ID');
    assert.equal(await refused('nul\0', {}), 'INVALID_GROUP_ID');
    assert.equal(await refused('x'.repeat(1025), {}), 'INVALID_GROUP_ID');
    assert.equal(await refused('g', { sessionTimeoutMs: 5_999 }), 'INVALID_SESSION_TIMEOUT');
    assert.equal(await refused('g', { sessionTimeoutMs: 1_800_001 }), 'INVALID_SESSION_TIMEOUT');
    assert.equal(await refused('g', { groupInstanceId: 'nul\0' }), 'INVALID_REQUEST');
    assert.equal(await refused('g', { protocols: [{ name: 'nul\0', metadata: Buffer.alloc(0) }] }), 'INVALID_REQUEST');
    assert.equal(await refused('g', { protocols: [] }), 'INCONSISTENT_GROUP_PROTOCOL');
    assert.equal(await refused('g', { memberId: 'made-up' }), 'UNKNOWN_MEMBER_ID');
    assert.equal(await commit('nul\0', 1), 'INVALID_GROUP_ID');
    assert.equal(await fetched('nul\0'), 'INVALID_GROUP_ID');
    assert.equal(await rig.metric('millrace_groups'), 0);
  });

  test('in a group that does not exist', async () => {
    const identity = { memberId: 'm', groupInstanceId: null, generationId: 1 };
    assert.equal(nameOf(rig.coordinator.heartbeat('g', identity)), 'UNKNOWN_MEMBER_ID');
    assert.deepEqual(rig.coordinator.leave('g', [{ ...identity, reason: null }]).memberErrors, [25]);
    assert.equal(
      nameOf((await sync('g', { memberId: 'm', generationId: 1 } as JoinAnswer, '')).errorCode),
      'UNKNOWN_MEMBER_ID',
    );
    assert.equal(await commit('g', 1, { memberId: 'm', generationId: 1 }), 'GROUP_ID_NOT_FOUND');
    assert.equal(
      await commit('g', 1, { memberId: 'm', generationId: 1, knowsGroupIdNotFound: false }),
      'ILLEGAL_GENERATION',
    );
    assert.equal(await commit('g', 1), 'NONE');
    assert.equal(await commit('g', 1, { memberId: 'm', generationId: 1 }), 'UNKNOWN_MEMBER_ID');
  });

  test('when memory is full of groups that nobody joined, until those are forgotten', async () => {
    rig = new CoordinatorRig(database.pool, topics, { groupMemoryBytes: 100_000 });
    await rig.coordinator.start();
    const half = (i: number) =>
      rig.coordinator.join(`g${i}`, request(), client, { memberIdFirst: true, skipsAssignment: true });
    const codes = await Promise.all(Array.from({ length: 200 }, async (_, i) => nameOf((await half(i)).errorCode)));
    const taken = codes.filter(code => code === 'MEMBER_ID_REQUIRED').length;
    assert.ok(taken > 20 && taken < 60, `${taken}`);
    assert.equal(codes.filter(code => code === 'COORDINATOR_NOT_AVAILABLE').length, 200 - taken);
    await rig.clock.advance(10_000);
    assert.equal(await rig.metric('millrace_groups'), 0);
    assert.equal(nameOf((await half(0)).errorCode), 'MEMBER_ID_REQUIRED');
    assert.deepEqual(await storedGroups(), []);
    await rig.coordinator.stop();
  });
});

describe('administration', () => {
  test('sees groups with members, empty ones, and those that only have offsets', async () => {
    const { memberId, generationId } = await member('was used');
    await commit('was used', 1, { memberId, generationId });
    rig.coordinator.leave('was used', [{ memberId, groupInstanceId: null, reason: null }]);
    await commit('simple', 1);
    await member('in use');
    await rig.until(async () => (await rig.metric('millrace_groups')) === 1);
    assert.deepEqual(await states(['in use', 'was used', 'simple', 'unknown', '']), [
      'Stable consumer NONE',
      'Empty consumer NONE',
      'Empty  NONE',
      'Dead  GROUP_ID_NOT_FOUND',
      'Dead  GROUP_ID_NOT_FOUND',
    ]);
    const { groups } = await rig.coordinator.list();
    assert.deepEqual(groups.map(({ groupId, protocolType, state }) => [groupId, protocolType, state]).sort(), [
      ['in use', 'consumer', 'Stable'],
      ['simple', '', 'Empty'],
      ['was used', 'consumer', 'Empty'],
    ]);
    assert.equal(await rig.metric('millrace_groups', 'Stable'), 1);
    assert.equal(await rig.metric('millrace_group_rebalances_total'), 2);
    assert.equal(await rig.metric('millrace_offset_commits_total'), 2);
  });

  test('deletes groups without members', async () => {
    const { memberId, generationId } = await member('in use');
    await commit('in use', 1, { memberId, generationId });
    await commit('simple', 1);
    const empty = await member('empty');
    rig.coordinator.leave('empty', [{ ...empty, groupInstanceId: null, reason: null }]);
    const outcome = await rig.coordinator.deleteGroups(['in use', 'simple', 'empty', 'unknown', 'simple', 'nul\0']);
    assert.deepEqual([...outcome].map(([groupId, errorCode]) => [groupId, nameOf(errorCode)]).sort(), [
      ['empty', 'NONE'],
      ['in use', 'NON_EMPTY_GROUP'],
      ['nul\0', 'INVALID_GROUP_ID'],
      ['simple', 'NONE'],
      ['unknown', 'GROUP_ID_NOT_FOUND'],
    ]);
    assert.deepEqual(await fetched('simple'), []);
    assert.deepEqual(await fetched('in use'), [1n]);
    assert.deepEqual(await storedGroups(), ['in use']);
  });

  test('deletes offsets, but not of topics that members subscribe to', async () => {
    const { memberId, generationId } = await member('g');
    await commit('g', 1, { memberId, generationId });
    await commit('g', 2, { memberId, generationId, topic: payments });
    const both = [orders, payments].map(topic => ({ topic, partition: 0 }));
    const { errorCode, subscribed } = await rig.coordinator.deleteOffsets('g', both);
    assert.equal(nameOf(errorCode), 'NONE');
    assert.deepEqual([...subscribed], [orders]);
    assert.deepEqual(await fetched('g'), [1n]);
    assert.equal(nameOf((await rig.coordinator.deleteOffsets('unknown', both)).errorCode), 'GROUP_ID_NOT_FOUND');
    await member('connect', { protocolType: 'connect' });
    assert.equal(nameOf((await rig.coordinator.deleteOffsets('connect', both)).errorCode), 'NON_EMPTY_GROUP');
    rig.coordinator.leave('g', [{ memberId, groupInstanceId: null, reason: null }]);
    assert.deepEqual((await rig.finish(rig.coordinator.deleteOffsets('g', both))).subscribed.size, 0);
    assert.deepEqual(await fetched('g'), []);
  });
});

describe('committed offsets', () => {
  test('need the generation of a group with members', async () => {
    const { memberId, generationId } = await member('g');
    assert.equal(await commit('g', 1), 'UNKNOWN_MEMBER_ID');
    assert.equal(await commit('g', 1, { memberId, generationId: 0 }), 'ILLEGAL_GENERATION');
    assert.equal(await commit('g', 1, { memberId, generationId }), 'NONE');
    assert.deepEqual(await fetched('g'), [1n]);
  });

  test('of a topic that has been deleted behind our back are told so', async () => {
    await database.pool.query('DELETE FROM kafka.topics WHERE topic_id = $1', [orders.id]);
    assert.equal(await commit('g', 1), 'gone');
  });

  test('that take too long are to be tried again; a fetch that requires stable ones waits for them', async () => {
    await commit('g', 1);
    await holding('LOCK TABLE kafka.consumer_offsets IN SHARE MODE', async () => {
      const committing = commit('g', 2);
      const stable = fetched('g', true);
      assert.deepEqual(await fetched('g'), [1n]);
      await rig.clock.advance(5_000);
      assert.equal(await committing, 'COORDINATOR_NOT_AVAILABLE');
      assert.equal(await stable, 'COORDINATOR_NOT_AVAILABLE');
    });
    assert.deepEqual(await fetched('g', true), [2n]);
  });

  test('expire, with the groups that had them', async () => {
    await commit('old', 1);
    await commit('fresh', 1);
    const { memberId, generationId } = await member('live');
    await commit('live', 1, { memberId, generationId });
    await commit('live', 1, { memberId, generationId, topic: payments });
    await database.pool.query(
      `INSERT INTO kafka.consumer_groups (group_id, protocol_type, generation, members, updated_at)
       VALUES ('old', 'consumer', 3, '[]', now() - interval '8 days')`,
    );
    await database.pool.query(
      `UPDATE kafka.consumer_offsets SET committed_at = now() - interval '8 days' WHERE group_id <> 'fresh'`,
    );
    await rig.clock.advance(10_000); // the member of 'live' is gone, but it was there a moment ago
    await rig.until(async () => (await rig.metric('millrace_groups')) === 0);
    await rig.clock.advance(590_000);
    await rig.until(async () => (await rig.metric('millrace_offsets_expired_total')) > 0);
    await rig.coordinator.stop();
    const { rows } = await database.pool.query('SELECT DISTINCT group_id FROM kafka.consumer_offsets ORDER BY 1');
    assert.deepEqual(rows, [{ group_id: 'fresh' }, { group_id: 'live' }]);
    assert.deepEqual(await storedGroups(), ['live']);
  });

  test('expire of topics that a stable group does not subscribe to', async () => {
    const { memberId, generationId } = await member('live', { sessionTimeoutMs: 1_800_000 });
    await commit('live', 1, { memberId, generationId });
    await commit('live', 2, { memberId, generationId, topic: payments });
    await database.pool.query(`UPDATE kafka.consumer_offsets SET committed_at = now() - interval '8 days'`);
    await rig.clock.advance(600_000);
    await rig.until(async () => (await rig.metric('millrace_offsets_expired_total')) > 0);
    assert.deepEqual(await fetched('live'), [1n]);
  });
});

test('without the database everything says so, and nothing hangs', async () => {
  const { memberId, generationId } = await member('g');
  const pool = openPool('postgres://nobody@127.0.0.1:1/nothing', { max: 1, applicationName: 'millrace test none' });
  const down = new CoordinatorRig(pool, topics);
  await assert.rejects(down.coordinator.start());
  await pool.end();

  await holding('LOCK TABLE kafka.consumer_offsets, kafka.consumer_groups IN ACCESS EXCLUSIVE MODE', async () => {
    const joining = join('g', { memberId, protocols: [{ name: 'range', metadata: Buffer.from('other') }] });
    const joined = await rig.finish(joining);
    const syncing = sync('g', joined, 'x');
    await rig.clock.advance(5_000);
    assert.equal(nameOf((await syncing).errorCode), 'COORDINATOR_NOT_AVAILABLE');
    assert.equal(await commit('g', 1, { memberId, generationId }), 'ILLEGAL_GENERATION');
    assert.equal(
      nameOf(rig.coordinator.heartbeat('g', { memberId, groupInstanceId: null, generationId: 2 })),
      'REBALANCE_IN_PROGRESS',
    );
  });
  const again = await rig.finish(join('g', { memberId }));
  assert.equal(nameOf((await rig.finish(sync('g', again, 'y'))).errorCode), 'NONE');
  await rig.coordinator.stop();
});
