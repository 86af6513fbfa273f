import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, errorIn, GroupRig, noDelay } from '../../../test/group-rig.ts';
import { settle } from '../../../test/manual-clock.ts';
import type { JoinAnswer } from './requests.ts';

describe('a session', () => {
  test('ends without heartbeats, and the others rebalance', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    await rig.clock.advance(9_000);
    assert.equal(rig.heartbeat(follower), 'NONE');
    await rig.clock.advance(1_000);
    assert.equal(rig.heartbeat(follower), 'REBALANCE_IN_PROGRESS');
    assert.equal(rig.heartbeat(leader), 'UNKNOWN_MEMBER_ID');
    const again = rig.join({ memberId: follower.memberId });
    await settle();
    assert.equal(answered(again).leader, follower.memberId);
    assert.equal(answered(again).generationId, 2);
  });

  test('is kept by commits, too', async () => {
    const rig = new GroupRig();
    const [joined] = (await rig.stable({})) as [JoinAnswer];
    for (let i = 0; i < 5; i++) {
      await rig.clock.advance(9_000);
      assert.equal(rig.commit(joined.memberId, joined.generationId), 'NONE');
    }
    assert.equal(rig.group.state, 'Stable');
  });

  test('does not end while the member waits for others to rejoin', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const waiting = rig.join({ memberId: leader.memberId });
    for (let i = 0; i < 6; i++) {
      await rig.clock.advance(9_999);
      rig.heartbeat(follower);
    }
    assert.equal(errorIn(waiting), undefined);
    await rig.clock.advance(10);
    assert.deepEqual(
      answered(waiting).members.map(({ memberId }) => memberId),
      [leader.memberId],
    );
  });

  test('of the last member to be waited for ends the wait', async () => {
    const rig = new GroupRig();
    const [leader] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const waiting = rig.join({ memberId: leader.memberId });
    await rig.clock.advance(10_000);
    assert.equal(answered(waiting).members.length, 1);
  });

  test('begins anew with the assignment', async () => {
    const rig = new GroupRig(noDelay);
    const asked = [rig.join(), rig.join()];
    await rig.clock.advance(1);
    const [leader, follower] = asked.map(answered) as [JoinAnswer, JoinAnswer];
    rig.sync(follower);
    await rig.clock.advance(9_000);
    rig.sync(leader, {});
    await rig.clock.advance(9_000);
    assert.equal(rig.heartbeat(follower), 'NONE');
  });

  test('of a new member that waits is longer, but not for ever', async () => {
    const rig = new GroupRig();
    const [first] = (await rig.stable({ rebalanceTimeoutMs: 600_000 })) as [JoinAnswer];
    const waiting = rig.join({ rebalanceTimeoutMs: 600_000 });
    for (let i = 0; i < 33; i++) {
      await rig.clock.advance(9_000);
      assert.equal(rig.heartbeat(first), 'REBALANCE_IN_PROGRESS');
    }
    assert.equal(errorIn(waiting), undefined);
    await rig.clock.advance(3_000); // five minutes
    assert.equal(errorIn(waiting), 'UNKNOWN_MEMBER_ID');
    assert.equal(waiting.answer?.memberId, '');
  });

  test('of everybody: the group is empty, stored so, and unused', async () => {
    const rig = new GroupRig();
    await rig.stable({}, {});
    await rig.clock.advance(10_000);
    assert.equal(rig.group.state, 'Empty');
    const stored = rig.saved.at(-1)!;
    assert.deepEqual([stored.members, stored.protocol, stored.leader, stored.generation], [[], null, null, 2]);
    assert.equal(stored.protocolType, 'consumer');
    assert.equal(rig.unused, 1);
    assert.equal(rig.clock.pending, 0);
  });

  test('ends, but that the group is empty cannot be stored: it is not forgotten, and tried again', async () => {
    const rig = new GroupRig();
    await rig.stable({});
    rig.saving = 'fail';
    await rig.clock.advance(10_000);
    assert.equal(rig.group.state, 'Empty');
    assert.ok(!rig.group.unused);
    rig.group.retryStoringEmpty();
    await settle();
    assert.ok(!rig.group.unused);
    rig.saving = 'work';
    rig.group.retryStoringEmpty();
    await settle();
    assert.ok(rig.group.unused);
  });
});

describe('a heartbeat', () => {
  test('is refused of a stranger, of another generation, in an empty group', async () => {
    const rig = new GroupRig();
    const [joined] = (await rig.stable({})) as [JoinAnswer];
    assert.equal(rig.heartbeat({ ...joined, memberId: 'stranger' }), 'UNKNOWN_MEMBER_ID');
    assert.equal(rig.heartbeat({ ...joined, generationId: 7 }), 'ILLEGAL_GENERATION');
    rig.leave(joined.memberId);
    await settle();
    assert.equal(rig.heartbeat(joined), 'UNKNOWN_MEMBER_ID');
  });

  test('is fine while the assignment is awaited', async () => {
    const rig = new GroupRig(noDelay);
    const asked = rig.join();
    await rig.clock.advance(1);
    assert.equal(rig.group.state, 'CompletingRebalance');
    assert.equal(rig.heartbeat(answered(asked)), 'NONE');
  });
});

describe('leaving', () => {
  test('begins a rebalance of the others', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    assert.equal(rig.leave(leader.memberId), 'NONE');
    assert.equal(rig.heartbeat(follower), 'REBALANCE_IN_PROGRESS');
    assert.equal(rig.group.leader, follower.memberId);
    assert.equal(rig.leave(leader.memberId), 'UNKNOWN_MEMBER_ID');
  });

  test('of the one that is waited for ends the wait', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const waiting = rig.join({ memberId: leader.memberId });
    await settle();
    rig.leave(follower.memberId);
    await settle();
    assert.equal(answered(waiting).members.length, 1);
  });

  test('answers what waits of the member', async () => {
    const rig = new GroupRig(noDelay);
    const asked = [rig.join(), rig.join()];
    await rig.clock.advance(1);
    const [, follower] = asked.map(answered) as [JoinAnswer, JoinAnswer];
    const waiting = rig.sync(follower);
    rig.leave(follower.memberId);
    await settle();
    assert.equal(errorIn(waiting), 'UNKNOWN_MEMBER_ID');
  });

  test('of the last one empties the group at once', async () => {
    const rig = new GroupRig();
    const [joined] = (await rig.stable({})) as [JoinAnswer];
    rig.leave(joined.memberId);
    await settle();
    assert.equal(rig.group.state, 'Empty');
    assert.ok(rig.group.unused);
  });

  test('of several is one rebalance', async () => {
    const rig = new GroupRig();
    const [first, second, third] = (await rig.stable({}, {}, { groupInstanceId: 'fixed' })) as JoinAnswer[];
    const errors = rig.group.leave([
      { memberId: first!.memberId, groupInstanceId: null, reason: 'done' },
      { memberId: 'stranger', groupInstanceId: null, reason: null },
      { memberId: '', groupInstanceId: 'fixed', reason: null },
      { memberId: '', groupInstanceId: 'unknown', reason: null },
      { memberId: '', groupInstanceId: null, reason: null },
    ]);
    assert.deepEqual(errors, [0, 25, 0, 25, 25]);
    assert.equal(rig.heartbeat(third!), 'UNKNOWN_MEMBER_ID');
    const again = rig.join({ memberId: second!.memberId });
    await settle();
    assert.equal(answered(again).generationId, 2);
    assert.equal(answered(again).members.length, 1);
  });
});

describe('an offset commit', () => {
  test('is for members of the generation, and for anybody while the group is empty', async () => {
    const rig = new GroupRig();
    assert.equal(rig.commit('', -1), 'NONE');
    const [joined] = (await rig.stable({})) as [JoinAnswer];
    const { memberId } = joined;
    assert.equal(rig.commit(memberId, 1), 'NONE');
    assert.equal(rig.commit(memberId, 0), 'ILLEGAL_GENERATION');
    assert.equal(rig.commit(memberId, -1), 'ILLEGAL_GENERATION');
    assert.equal(rig.commit('', -1), 'UNKNOWN_MEMBER_ID');
    assert.equal(rig.commit('stranger', 1), 'UNKNOWN_MEMBER_ID');
    assert.equal(rig.commit(memberId, 1, 'not-static'), 'UNKNOWN_MEMBER_ID');
    rig.leave(memberId);
    await settle();
    assert.equal(rig.commit('', -1), 'NONE');
    assert.equal(rig.commit(memberId, 1), 'UNKNOWN_MEMBER_ID');
  });

  test('of the old generation is taken until the new one begins', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const again = [rig.join({ memberId: leader.memberId })];
    assert.equal(rig.commit(follower.memberId, 1), 'NONE');
    again.push(rig.join({ memberId: follower.memberId }));
    await settle();
    assert.equal(rig.commit(follower.memberId, 1), 'ILLEGAL_GENERATION');
    assert.equal(rig.commit(follower.memberId, 2), 'REBALANCE_IN_PROGRESS');
    await rig.complete(again.map(answered));
    assert.equal(rig.commit(follower.memberId, 2), 'NONE');
  });
});

describe('closing', () => {
  test('answers everything that waits with an error that is tried again, and everything after', async () => {
    const rig = new GroupRig(noDelay);
    const asked = [rig.join(), rig.join()];
    await rig.clock.advance(1);
    const [leader, follower] = asked.map(answered) as [JoinAnswer, JoinAnswer];
    const waiting = [rig.sync(follower)];
    rig.group.close();
    rig.group.close();
    const later = rig.sync(leader);
    const joining = rig.join();
    await settle();
    assert.deepEqual([...waiting, later, joining].map(errorIn), Array(3).fill('COORDINATOR_NOT_AVAILABLE'));
    assert.equal(rig.heartbeat(leader), 'COORDINATOR_NOT_AVAILABLE');
    assert.equal(rig.leave(leader.memberId), 'COORDINATOR_NOT_AVAILABLE');
    assert.equal(rig.commit('', -1), 'COORDINATOR_NOT_AVAILABLE');
    assert.equal(rig.clock.pending, 0);
    assert.equal(rig.memory.used, 0);
  });

  test('in a first rebalance, too', async () => {
    const rig = new GroupRig();
    const asked = [rig.join(), rig.join()];
    await rig.clock.advance(100);
    rig.group.close();
    await settle();
    assert.deepEqual(asked.map(errorIn), Array(2).fill('COORDINATOR_NOT_AVAILABLE'));
    assert.equal(rig.clock.pending, 0);
  });
});

describe('a stored group', () => {
  test('goes on in the same generation, with full sessions', async () => {
    const before = new GroupRig();
    const joined = await before.stable({}, { groupInstanceId: 'fixed' });
    const rig = new GroupRig({}, before.saved.at(-1));
    assert.equal(rig.group.state, 'Stable');
    await rig.clock.advance(9_999);
    assert.deepEqual(
      joined.map(answer => rig.heartbeat(answer)),
      ['NONE', 'NONE'],
    );
    const asked = rig.sync(joined[1]!);
    await settle();
    assert.equal(answered(asked).assignment.toString(), `to ${joined[1]!.memberId}`);
    assert.equal(rig.commit(joined[0]!.memberId, 1), 'NONE');
    assert.deepEqual([...rig.group.subscribed!], ['orders']);
  });

  test('whose members are gone is empty after their sessions', async () => {
    const before = new GroupRig();
    await before.stable({}, {});
    const rig = new GroupRig({}, before.saved.at(-1));
    await rig.clock.advance(10_000);
    assert.equal(rig.group.state, 'Empty');
    assert.equal(rig.group.generation, 2);
  });
});
