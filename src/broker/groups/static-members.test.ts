import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, errorIn, GroupRig, noDelay } from '../../../test/group-rig.ts';
import { settle } from '../../../test/manual-clock.ts';
import type { JoinAnswer } from './requests.ts';

const a = { groupInstanceId: 'a', version: 9 };
const b = { groupInstanceId: 'b', version: 9 };

describe('a static member (KIP-345)', () => {
  test('joins at once, with an id that begins with its instance id', async () => {
    const rig = new GroupRig();
    const [leader] = (await rig.stable(a, b)) as [JoinAnswer];
    assert.match(leader.memberId, /^a-/);
    assert.deepEqual(
      leader.members.map(({ groupInstanceId }) => groupInstanceId),
      ['a', 'b'],
    );
  });

  test('back as a follower: the same assignment, no rebalance', async () => {
    const rig = new GroupRig();
    const [, follower] = (await rig.stable(a, b)) as [JoinAnswer, JoinAnswer];
    const saves = rig.saved.length;
    const back = rig.join(b);
    await settle();
    const joined = answered(back);
    assert.notEqual(joined.memberId, follower.memberId);
    assert.equal(joined.generationId, 1);
    assert.equal(joined.leader, follower.leader);
    assert.equal(joined.skipAssignment, false);
    assert.equal(rig.group.state, 'Stable');
    const synced = rig.sync(joined, {}, { groupInstanceId: 'b' });
    await settle();
    assert.equal(answered(synced).assignment.toString(), `to ${follower.memberId}`);
    assert.equal(rig.saved.length, saves + 1);
    assert.deepEqual(
      rig.saved.at(-1)!.members.map(({ memberId, groupInstanceId }) => [memberId, groupInstanceId]),
      [
        [joined.leader, 'a'],
        [joined.memberId, 'b'],
      ],
    );
  });

  test('back: its former self is fenced everywhere', async () => {
    const rig = new GroupRig();
    const [, former] = (await rig.stable(a, b)) as [JoinAnswer, JoinAnswer];
    const back = rig.join(b);
    await settle();
    answered(back);
    const rejoin = rig.join({ ...b, memberId: former.memberId });
    const sync = rig.sync(former, {}, { groupInstanceId: 'b' });
    await settle();
    assert.equal(errorIn(rejoin), 'FENCED_INSTANCE_ID');
    assert.equal(errorIn(sync), 'FENCED_INSTANCE_ID');
    assert.equal(rig.heartbeat(former, 'b'), 'FENCED_INSTANCE_ID');
    assert.equal(rig.commit(former.memberId, 1, 'b'), 'FENCED_INSTANCE_ID');
    assert.equal(rig.leave(former.memberId, 'b'), 'FENCED_INSTANCE_ID');
    assert.equal(rig.heartbeat(former), 'UNKNOWN_MEMBER_ID');
    assert.equal(rig.heartbeat(answered(back), 'b'), 'NONE');
  });

  test('back as the leader: leads on without assigning (KIP-814)', async () => {
    const rig = new GroupRig();
    const [leader] = (await rig.stable(a, b)) as [JoinAnswer];
    const back = rig.join(a);
    await settle();
    const joined = answered(back);
    assert.notEqual(joined.memberId, leader.memberId);
    assert.equal(joined.leader, joined.memberId);
    assert.equal(joined.skipAssignment, true);
    assert.equal(joined.members.length, 2);
    assert.equal(rig.group.state, 'Stable');
  });

  test('back as the leader with an older version: told its former id, so that it does not assign', async () => {
    const rig = new GroupRig();
    const [leader] = (await rig.stable(a, b)) as [JoinAnswer];
    const back = rig.join({ ...a, version: 8 });
    await settle();
    const joined = answered(back);
    assert.equal(joined.leader, leader.memberId);
    assert.equal(joined.skipAssignment, false);
    assert.deepEqual(joined.members, []);
    assert.equal(rig.group.leader, joined.memberId);
  });

  test('back, but that cannot be stored: refused, and fine the next time', async () => {
    const rig = new GroupRig();
    await rig.stable(a, b);
    rig.saving = 'fail';
    const refused = rig.join(b);
    await settle();
    assert.equal(errorIn(refused), 'COORDINATOR_NOT_AVAILABLE');
    rig.saving = 'work';
    const back = rig.join(b);
    await settle();
    assert.equal(answered(back).generationId, 1);
    assert.equal(rig.group.size, 2);
  });

  test('back with protocols that change the choice: a rebalance', async () => {
    const rig = new GroupRig();
    const offering = (...names: string[]) => names.map(name => ({ name, metadata: Buffer.from(name) }));
    const [leader] = (await rig.stable(
      { ...a, protocols: offering('range', 'sticky') },
      { ...b, protocols: offering('range', 'sticky') },
    )) as [JoinAnswer];
    const back = rig.join({ ...b, protocols: offering('sticky') });
    await settle();
    assert.equal(rig.group.state, 'PreparingRebalance');
    rig.join({ ...a, memberId: leader.memberId, protocols: offering('range', 'sticky') });
    await settle();
    assert.equal(answered(back).protocolName, 'sticky');
  });

  test('back before the assignment: a rebalance, because the leader knows its former id', async () => {
    const rig = new GroupRig(noDelay);
    const asked = [rig.join(a), rig.join(b)];
    await rig.clock.advance(1);
    const [leader, former] = asked.map(answered) as [JoinAnswer, JoinAnswer];
    const fenced = rig.sync(former, {}, { groupInstanceId: 'b' });
    const leading = rig.join(b);
    await settle();
    assert.equal(errorIn(fenced), 'FENCED_INSTANCE_ID');
    assert.equal(rig.group.state, 'PreparingRebalance');
    const again = rig.join({ ...a, memberId: leader.memberId });
    await settle();
    await rig.complete([answered(again), answered(leading)]);
  });

  test('back while the others rejoin: its former JoinGroup is fenced, the new one counts', async () => {
    const rig = new GroupRig();
    const [leader] = (await rig.stable(a, b)) as [JoinAnswer];
    const first = rig.join({ ...a, memberId: leader.memberId });
    const second = rig.join(a);
    await settle();
    assert.equal(errorIn(first), 'FENCED_INSTANCE_ID');
    assert.equal(errorIn(second), undefined);
    const other = rig.join(b);
    await settle();
    await rig.complete([answered(second), answered(other)]);
  });

  test('back twice at once: the first is fenced, the second goes on', async () => {
    const rig = new GroupRig();
    await rig.stable(a, b);
    rig.saving = 'hold';
    const first = rig.join(b);
    const second = rig.join(b);
    await rig.release();
    assert.equal(errorIn(first), 'FENCED_INSTANCE_ID');
    assert.equal(answered(second).generationId, 1);
    assert.equal(rig.saved.at(-1)!.members[1]!.memberId, answered(second).memberId);
  });

  test('that is back while a rebalance begins is answered by the rebalance', async () => {
    const rig = new GroupRig();
    const [leader] = (await rig.stable(a, b)) as [JoinAnswer];
    rig.saving = 'hold';
    const back = rig.join(b);
    await settle();
    const again = rig.join({ ...a, memberId: leader.memberId });
    await settle();
    assert.equal(rig.group.generation, 2);
    assert.equal(answered(back).generationId, 2);
    await rig.release();
    await rig.complete([answered(again), answered(back)]);
  });

  test('back without having asked for its assignment still owes that, under its new id', async () => {
    const rig = new GroupRig(noDelay);
    const asked = [rig.join(a), rig.join({ ...b, rebalanceTimeoutMs: 30_000 })];
    await rig.clock.advance(1);
    const [leader] = asked.map(answered) as [JoinAnswer];
    rig.sync(leader, {}, { groupInstanceId: 'a' });
    await settle();
    assert.equal(rig.group.state, 'Stable');
    const back = rig.join(b);
    await settle();
    for (let i = 0; i < 7; i++) {
      await rig.clock.advance(9_000);
      rig.heartbeat(leader, 'a');
      rig.heartbeat(answered(back), 'b');
    }
    assert.equal(rig.group.state, 'PreparingRebalance');
    assert.equal(rig.heartbeat(answered(back), 'b'), 'UNKNOWN_MEMBER_ID');
  });

  test('away does not lose its place in a rebalance before its session ends', async () => {
    const rig = new GroupRig();
    const [leader] = (await rig.stable(a, { ...b, sessionTimeoutMs: 1_800_000 })) as [JoinAnswer];
    const waiting = rig.join({ ...a, memberId: leader.memberId });
    await rig.clock.advance(60_000);
    assert.deepEqual(
      answered(waiting).members.map(({ groupInstanceId }) => groupInstanceId),
      ['a', 'b'],
    );
  });

  test('all of them away: the group waits for them, then for their sessions', async () => {
    const rig = new GroupRig();
    const joined = await rig.stable({ ...a, sessionTimeoutMs: 100_000 }, { ...b, sessionTimeoutMs: 100_000 }, {});
    rig.leave(joined[2]!.memberId);
    await rig.clock.advance(60_000);
    assert.equal(rig.group.state, 'PreparingRebalance');
    assert.equal(rig.group.size, 2);
    await rig.clock.advance(40_000);
    assert.equal(rig.group.state, 'Empty');
  });

  test('does not leave by stopping, but by LeaveGroup of its instance', async () => {
    const rig = new GroupRig();
    await rig.stable(a, b);
    assert.equal(rig.leave('', 'b'), 'NONE');
    assert.equal(rig.group.state, 'PreparingRebalance');
    assert.equal(rig.group.size, 1);
  });

  test('takes no more room than its former self', async () => {
    const rig = new GroupRig({ groupMaxSize: 2 });
    await rig.stable(a, b);
    const used = rig.memory.used;
    for (let i = 0; i < 50; i++) {
      const back = rig.join(b);
      await settle();
      answered(back);
    }
    assert.equal(rig.memory.used, used);
    assert.equal(rig.group.size, 2);
  });
});
