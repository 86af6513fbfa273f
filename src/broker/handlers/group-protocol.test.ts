// The group APIs through the codec, in every version that differs.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { CoordinatorRig } from '../../../test/coordinator-rig.ts';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { nameOf, subscription } from '../../../test/group-rig.ts';
import { call } from '../../../test/handler-call.ts';
import { FindCoordinator } from '../../protocol/messages/10-find-coordinator.ts';
import { JoinGroup } from '../../protocol/messages/11-join-group.ts';
import { Heartbeat } from '../../protocol/messages/12-heartbeat.ts';
import { LeaveGroup } from '../../protocol/messages/13-leave-group.ts';
import { SyncGroup } from '../../protocol/messages/14-sync-group.ts';
import { DescribeGroups } from '../../protocol/messages/15-describe-groups.ts';
import { ListGroups } from '../../protocol/messages/16-list-groups.ts';
import { DeleteGroups } from '../../protocol/messages/42-delete-groups.ts';
import type { RequestToSend } from '../../protocol/schema.ts';
import { Topics } from '../../storage/topics.ts';
import { findCoordinator } from './10-find-coordinator.ts';
import { joinGroup } from './11-join-group.ts';
import { heartbeat } from './12-heartbeat.ts';
import { leaveGroup } from './13-leave-group.ts';
import { syncGroup } from './14-sync-group.ts';
import { describeGroups } from './15-describe-groups.ts';
import { listGroups } from './16-list-groups.ts';
import { deleteGroups } from './42-delete-groups.ts';

let database: TestDatabase;
let rig: CoordinatorRig;

before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

beforeEach(async () => {
  await database.pool.query('TRUNCATE kafka.topics, kafka.consumer_groups CASCADE');
  rig = new CoordinatorRig(database.pool, await Topics.load(database.pool));
  await rig.coordinator.start();
});

const versionsOf = (api: { versions: readonly [number, number] }) =>
  Array.from({ length: api.versions[1] - api.versions[0] + 1 }, (_, i) => api.versions[0] + i);

async function join(version: number, change: Partial<RequestToSend<typeof JoinGroup>> = {}) {
  const request = {
    groupId: 'g',
    sessionTimeoutMs: 10_000,
    rebalanceTimeoutMs: 20_000,
    memberId: '',
    protocolType: 'consumer',
    protocols: [{ name: 'range', metadata: subscription('orders') }],
    ...change,
  };
  const ask = () => rig.finish(call(JoinGroup, joinGroup, version, request, rig.broker));
  const answer = await ask();
  if (nameOf(answer.errorCode) !== 'MEMBER_ID_REQUIRED') return answer;
  request.memberId = answer.memberId;
  return ask();
}

type Joined = Awaited<ReturnType<typeof join>>;

function sync(
  version: number,
  { memberId, generationId, protocolName }: Joined,
  protocolType: string | null = 'consumer',
) {
  const request = {
    groupId: 'g',
    generationId,
    memberId,
    protocolType,
    protocolName,
    assignments: [{ memberId, assignment: Buffer.from('yours') }],
  };
  return rig.finish(call(SyncGroup, syncGroup, version, request, rig.broker));
}

async function stable(): Promise<Joined> {
  const joined = await join(9);
  await sync(5, joined);
  return joined;
}

describe('JoinGroup and SyncGroup', () => {
  for (const version of versionsOf(JoinGroup)) {
    test(`JoinGroup version ${version}`, async () => {
      const joined = await join(version);
      assert.equal(nameOf(joined.errorCode), 'NONE');
      assert.equal(joined.generationId, 1);
      assert.equal(joined.protocolName, 'range');
      assert.equal(joined.protocolType, version >= 7 ? 'consumer' : null);
      assert.match(joined.memberId, /^test-/);
      assert.equal(joined.leader, joined.memberId);
      assert.deepEqual(joined.members, [
        { memberId: joined.memberId, groupInstanceId: null, metadata: subscription('orders') },
      ]);
      const refused = await join(version, { protocols: [] });
      assert.equal(nameOf(refused.errorCode), 'INCONSISTENT_GROUP_PROTOCOL');
      assert.equal(refused.protocolName, version >= 7 ? null : '');
    });
  }

  for (const version of versionsOf(SyncGroup)) {
    test(`SyncGroup version ${version}`, async () => {
      const synced = await sync(version, await join(9));
      assert.equal(nameOf(synced.errorCode), 'NONE');
      assert.equal(synced.assignment.toString(), 'yours');
      assert.equal(synced.protocolName, version >= 5 ? 'range' : null);
    });
  }

  test('SyncGroup 5 must name the protocol', async () => {
    assert.equal(nameOf((await sync(5, await join(9), null)).errorCode), 'INCONSISTENT_GROUP_PROTOCOL');
  });

  test('JoinGroup 0 takes the session timeout for the rebalance timeout', async () => {
    const leader = await join(0);
    await sync(1, leader);
    const waiting = call(
      JoinGroup,
      joinGroup,
      0,
      {
        groupId: 'g',
        sessionTimeoutMs: 10_000,
        memberId: '',
        protocolType: 'consumer',
        protocols: [{ name: 'range', metadata: Buffer.alloc(0) }],
      },
      rig.broker,
    );
    await rig.until(async () => (await rig.metric('millrace_groups', 'PreparingRebalance')) === 1);
    await rig.clock.advance(5_000);
    const request = { groupId: 'g', generationId: 1, memberId: leader.memberId };
    assert.equal(nameOf((await call(Heartbeat, heartbeat, 0, request, rig.broker)).errorCode), 'REBALANCE_IN_PROGRESS');
    await rig.clock.advance(5_000);
    assert.equal((await waiting).members.length, 1);
  });

  test('static members are told apart by instance', async () => {
    const first = await join(9, { groupInstanceId: 'i-1' });
    await sync(5, first);
    const back = await join(9, { groupInstanceId: 'i-1' });
    assert.deepEqual([back.generationId, back.skipAssignment, back.leader], [1, true, back.memberId]);
    const request = { groupId: 'g', generationId: 1, memberId: first.memberId, groupInstanceId: 'i-1' };
    assert.equal(nameOf((await call(Heartbeat, heartbeat, 3, request, rig.broker)).errorCode), 'FENCED_INSTANCE_ID');
  });
});

describe('LeaveGroup', () => {
  for (const version of versionsOf(LeaveGroup)) {
    test(`version ${version}`, async () => {
      const { memberId } = await stable();
      const request = { groupId: 'g', memberId, members: [{ memberId }, { memberId: 'stranger' }] };
      const answer = await call(LeaveGroup, leaveGroup, version, request, rig.broker);
      assert.equal(nameOf(answer.errorCode), 'NONE');
      const members = answer.members.map(member => [member.memberId, nameOf(member.errorCode)]);
      const both = [
        [memberId, 'NONE'],
        ['stranger', 'UNKNOWN_MEMBER_ID'],
      ];
      assert.deepEqual(members, version >= 3 ? both : []);
      const again = await call(LeaveGroup, leaveGroup, version, request, rig.broker);
      assert.equal(nameOf(again.errorCode), version >= 3 ? 'NONE' : 'UNKNOWN_MEMBER_ID');
      const invalid = await call(LeaveGroup, leaveGroup, version, { ...request, groupId: '' }, rig.broker);
      assert.equal(nameOf(invalid.errorCode), 'INVALID_GROUP_ID');
    });
  }
});

describe('DescribeGroups', () => {
  for (const version of versionsOf(DescribeGroups)) {
    test(`version ${version}`, async () => {
      const { memberId } = await stable();
      const request = { groups: ['g', 'unknown'], includeAuthorizedOperations: version >= 4 };
      const { groups } = await call(DescribeGroups, describeGroups, version, request, rig.broker);
      const [known, unknown] = groups;
      assert.equal(known!.groupState, 'Stable');
      assert.equal(known!.protocolType, 'consumer');
      assert.equal(known!.protocolData, 'range');
      assert.deepEqual(known!.members, [
        {
          memberId,
          groupInstanceId: null,
          clientId: 'test',
          clientHost: '/127.0.0.1',
          memberMetadata: subscription('orders'),
          memberAssignment: Buffer.from('yours'),
        },
      ]);
      const operations = (1 << 3) | (1 << 6) | (1 << 8) | (1 << 10) | (1 << 11);
      assert.equal(known!.authorizedOperations, version >= 4 ? operations : -(2 ** 31));
      assert.equal(unknown!.groupState, 'Dead');
      assert.equal(nameOf(unknown!.errorCode), version >= 6 ? 'GROUP_ID_NOT_FOUND' : 'NONE');
    });
  }
});

describe('ListGroups', () => {
  const list = async (version: number, filter: { statesFilter?: string[]; typesFilter?: string[] } = {}) =>
    (await call(ListGroups, listGroups, version, filter, rig.broker)).groups;

  for (const version of versionsOf(ListGroups)) {
    test(`version ${version}`, async () => {
      await stable();
      assert.deepEqual(await list(version), [
        {
          groupId: 'g',
          protocolType: 'consumer',
          groupState: version >= 4 ? 'Stable' : '',
          groupType: version >= 5 ? 'classic' : '',
        },
      ]);
    });
  }

  test('filters', async () => {
    await stable();
    assert.equal((await list(4, { statesFilter: ['empty', ' STABLE '] })).length, 1);
    assert.equal((await list(4, { statesFilter: ['Empty'] })).length, 0);
    assert.equal((await list(5, { typesFilter: ['Classic'] })).length, 1);
    assert.equal((await list(5, { typesFilter: ['consumer'] })).length, 0);
    assert.equal((await list(5, { typesFilter: ['nonsense'], statesFilter: ['Stable'] })).length, 0);
  });
});

describe('FindCoordinator', () => {
  for (const version of versionsOf(FindCoordinator)) {
    test(`version ${version}`, async () => {
      const ask = async (keyType: number) => {
        const request = { key: 'a', keyType, coordinatorKeys: ['a', 'b'] };
        const answer = await call(FindCoordinator, findCoordinator, version, request, rig.broker);
        if (version < 4) return answer;
        assert.deepEqual(
          answer.coordinators.map(({ key }) => key),
          ['a', 'b'],
        );
        return answer.coordinators[0]!;
      };
      const { errorCode, nodeId, host, port } = await ask(0);
      assert.deepEqual([nameOf(errorCode), nodeId, host, port], ['NONE', 1, 'broker.example', 9092]);
      if (version === 0) return;
      const transaction = await ask(1);
      assert.equal(nameOf(transaction.errorCode), 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED');
      assert.match(transaction.errorMessage!, /does not serve transactions/);
      assert.equal(transaction.nodeId, -1);
      assert.equal(nameOf((await ask(2)).errorCode), 'INVALID_REQUEST');
    });
  }
});

test('Heartbeat and DeleteGroups, every version', async () => {
  const { memberId } = await stable();
  for (const version of versionsOf(Heartbeat)) {
    const request = { groupId: 'g', generationId: 1, memberId };
    assert.equal(nameOf((await call(Heartbeat, heartbeat, version, request, rig.broker)).errorCode), 'NONE');
  }
  for (const version of versionsOf(DeleteGroups)) {
    const request = { groupsNames: ['g', 'unknown'] };
    const { results } = await call(DeleteGroups, deleteGroups, version, request, rig.broker);
    assert.deepEqual(results.map(({ groupId, errorCode }) => [groupId, nameOf(errorCode)]).sort(), [
      ['g', 'NON_EMPTY_GROUP'],
      ['unknown', 'GROUP_ID_NOT_FOUND'],
    ]);
  }
});
