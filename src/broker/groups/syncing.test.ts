import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, errorIn, GroupRig, noDelay } from '../../../test/group-rig.ts';
import { settle } from '../../../test/manual-clock.ts';
import type { JoinAnswer } from './requests.ts';

async function twoJoined(rig: GroupRig): Promise<[leader: JoinAnswer, follower: JoinAnswer]> {
  const asked = [rig.join(), rig.join()];
  await rig.clock.advance(1);
  return asked.map(answered) as [JoinAnswer, JoinAnswer];
}

describe('an assignment', () => {
  test('is handed out once it is saved', async () => {
    const rig = new GroupRig(noDelay);
    const [leader, follower] = await twoJoined(rig);
    const waiting = rig.sync(follower);
    await settle();
    assert.equal(errorIn(waiting), undefined);
    rig.saving = 'hold';
    const leading = rig.sync(leader, { [leader.memberId]: 'a', [follower.memberId]: 'b' });
    await settle();
    assert.equal(errorIn(leading), undefined);
    assert.equal(rig.group.state, 'CompletingRebalance');
    await rig.release();
    assert.equal(answered(leading).assignment.toString(), 'a');
    assert.equal(answered(waiting).assignment.toString(), 'b');
    assert.equal(rig.group.state, 'Stable');
    assert.equal(rig.rebalances, 1);
  });

  test('is there for whoever asks later, and again', async () => {
    const rig = new GroupRig(noDelay);
    const [leader, follower] = await twoJoined(rig);
    rig.sync(leader, { [follower.memberId]: 'b' });
    await settle();
    for (let i = 0; i < 2; i++) {
      const asked = rig.sync(follower, {}, { protocolType: 'consumer', protocolName: 'range' });
      await settle();
      const { protocolType, protocolName, assignment } = answered(asked);
      assert.deepEqual([protocolType, protocolName, assignment.toString()], ['consumer', 'range', 'b']);
    }
  });

  test('that leaves a member out is empty for it', async () => {
    const rig = new GroupRig(noDelay);
    const [leader, follower] = await twoJoined(rig);
    const waiting = rig.sync(follower);
    rig.sync(leader, { [leader.memberId]: 'all', stranger: 'nothing' });
    await settle();
    assert.equal(answered(waiting).assignment.length, 0);
  });

  test('stored is what the members were told', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, { groupInstanceId: 'fixed' })) as [JoinAnswer, JoinAnswer];
    const stored = rig.saved.at(-1)!;
    assert.equal(stored.generation, 1);
    assert.equal(stored.leader, leader.memberId);
    assert.equal(stored.protocol, 'range');
    assert.deepEqual(
      stored.members.map(member => [member.memberId, member.groupInstanceId, member.assignment.toString()]),
      [
        [leader.memberId, null, `to ${leader.memberId}`],
        [follower.memberId, 'fixed', `to ${follower.memberId}`],
      ],
    );
  });

  test('that cannot be saved is an error for everybody, and a new rebalance', async () => {
    const rig = new GroupRig(noDelay);
    const [leader, follower] = await twoJoined(rig);
    const asked = [rig.sync(follower)];
    rig.saving = 'fail';
    asked.push(rig.sync(leader, { [leader.memberId]: 'a' }));
    await settle();
    assert.deepEqual(asked.map(errorIn), ['COORDINATOR_NOT_AVAILABLE', 'COORDINATOR_NOT_AVAILABLE']);
    assert.equal(rig.group.state, 'PreparingRebalance');
    rig.saving = 'work';
    const again = [leader, follower].map(({ memberId }) => rig.join({ memberId }));
    await settle();
    await rig.complete(again.map(answered));
  });

  test('that takes too long to save is given up, and what the save does later changes nothing', async () => {
    const rig = new GroupRig(noDelay);
    const [leader, follower] = await twoJoined(rig);
    rig.saving = 'hold';
    const leading = rig.sync(leader, { [leader.memberId]: 'a' });
    await rig.clock.advance(5_000);
    assert.equal(errorIn(leading), 'COORDINATOR_NOT_AVAILABLE');
    const again = [leader, follower].map(({ memberId }) => rig.join({ memberId }));
    await rig.release();
    assert.equal(rig.group.state, 'CompletingRebalance');
    await rig.complete(again.map(answered));
  });

  test('is overtaken by a member that joins while it is saved', async () => {
    const rig = new GroupRig(noDelay);
    const [leader, follower] = await twoJoined(rig);
    rig.saving = 'hold';
    const leading = rig.sync(leader, { [leader.memberId]: 'a' });
    await settle();
    const newcomer = rig.join();
    await settle();
    assert.equal(errorIn(leading), 'REBALANCE_IN_PROGRESS');
    await rig.release();
    assert.equal(rig.group.state, 'PreparingRebalance');
    const asked = [leader, follower].map(({ memberId }) => rig.join({ memberId }));
    await settle();
    await rig.complete([...asked, newcomer].map(answered));
    assert.equal(rig.group.generation, 2);
  });

  test('that the leader sends twice counts once, and both requests are answered', async () => {
    const rig = new GroupRig(noDelay);
    const [leader] = await twoJoined(rig);
    rig.saving = 'hold';
    const first = rig.sync(leader, { [leader.memberId]: 'one' });
    await settle();
    const second = rig.sync(leader, { [leader.memberId]: 'two' });
    await rig.release();
    assert.equal(errorIn(first), 'REBALANCE_IN_PROGRESS');
    assert.equal(answered(second).assignment.toString(), 'one');
    assert.equal(rig.saved.length, 1);
  });

  test('too large is refused for good', async () => {
    const rig = new GroupRig(noDelay);
    const [leader] = await twoJoined(rig);
    const asked = rig.sync(leader, { [leader.memberId]: 'x'.repeat(2 ** 20 + 1) });
    await settle();
    assert.equal(errorIn(asked), 'UNKNOWN_SERVER_ERROR');
    assert.equal(rig.saved.length, 0);
  });
});

describe('SyncGroup is refused', () => {
  test('of a stranger, another generation, another protocol, during a rebalance', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const asked = [
      rig.sync({ ...leader, memberId: 'stranger' }),
      rig.sync(leader, {}, { generationId: 0 }),
      rig.sync(leader, {}, { protocolName: 'sticky' }),
      rig.sync(leader, {}, { protocolType: 'connect' }),
      rig.sync(leader, {}, { groupInstanceId: 'not-static' }),
    ];
    rig.join({ memberId: leader.memberId });
    asked.push(rig.sync(follower));
    await settle();
    assert.deepEqual(asked.map(errorIn), [
      'UNKNOWN_MEMBER_ID',
      'ILLEGAL_GENERATION',
      'INCONSISTENT_GROUP_PROTOCOL',
      'INCONSISTENT_GROUP_PROTOCOL',
      'UNKNOWN_MEMBER_ID',
      'REBALANCE_IN_PROGRESS',
    ]);
  });
});

describe('members who never ask for their assignment', () => {
  test('are out after the rebalance timeout', async () => {
    const rig = new GroupRig(noDelay);
    const [leader, follower] = await twoJoined(rig);
    rig.sync(leader, { [leader.memberId]: 'a' });
    await settle();
    assert.equal(rig.group.state, 'Stable');
    for (let i = 0; i < 10; i++) {
      await rig.clock.advance(6_000);
      rig.heartbeat(leader);
      rig.heartbeat(follower);
    }
    assert.equal(rig.group.state, 'PreparingRebalance');
    assert.equal(rig.heartbeat(follower), 'UNKNOWN_MEMBER_ID');
    assert.equal(rig.heartbeat(leader), 'REBALANCE_IN_PROGRESS');
  });

  test('are not waited for when they have', async () => {
    const rig = new GroupRig();
    const joined = await rig.stable({}, {});
    for (let i = 0; i < 20; i++) {
      await rig.clock.advance(6_000);
      assert.deepEqual(
        joined.map(answer => rig.heartbeat(answer)),
        ['NONE', 'NONE'],
      );
    }
  });

  test('the leader among them: the others are told to rejoin', async () => {
    const rig = new GroupRig(noDelay);
    const [leader, follower] = await twoJoined(rig);
    const waiting = rig.sync(follower);
    for (let i = 0; i < 10; i++) {
      await rig.clock.advance(6_000);
      rig.heartbeat(leader);
    }
    assert.equal(errorIn(waiting), 'REBALANCE_IN_PROGRESS');
    const again = rig.join({ memberId: follower.memberId });
    await settle();
    assert.equal(answered(again).leader, follower.memberId);
  });

  test('all of them: the group is empty', async () => {
    const rig = new GroupRig(noDelay);
    await twoJoined(rig);
    await rig.clock.advance(10_000); // their sessions end first
    assert.equal(rig.group.state, 'Empty');
    assert.ok(rig.group.unused);
  });
});
