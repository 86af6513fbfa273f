import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, errorIn, GroupRig, noDelay, subscription } from '../../../test/group-rig.ts';
import { settle } from '../../../test/manual-clock.ts';
import type { JoinAnswer } from './requests.ts';

describe('the first rebalance', () => {
  test('waits for the initial delay, and longer while members come', async () => {
    const rig = new GroupRig();
    const first = rig.join();
    await rig.clock.advance(2999);
    assert.equal(errorIn(first), undefined);
    assert.equal(rig.group.state, 'PreparingRebalance');
    const second = rig.join();
    await rig.clock.advance(2); // the delay is over, but the group has grown
    assert.equal(errorIn(first), undefined);
    await rig.clock.advance(3000);
    const answers = [first, second].map(answered);
    assert.equal(rig.group.state, 'CompletingRebalance');
    assert.deepEqual(
      answers.map(({ generationId, protocolName, protocolType }) => [generationId, protocolName, protocolType]),
      [
        [1, 'range', 'consumer'],
        [1, 'range', 'consumer'],
      ],
    );
  });

  test('is not put off longer than the rebalance timeout', async () => {
    const rig = new GroupRig();
    const asked = [rig.join({ rebalanceTimeoutMs: 7000 })];
    for (let second = 1; second <= 6; second++) {
      await rig.clock.advance(1000);
      asked.push(rig.join({ rebalanceTimeoutMs: 7000 }));
    }
    await rig.clock.advance(1000);
    assert.equal(asked.map(answered).length, 7);
  });

  test('begins at once without a delay', async () => {
    const rig = new GroupRig(noDelay);
    const asked = rig.join();
    await rig.clock.advance(0);
    const joined = answered(asked);
    assert.equal(joined.leader, joined.memberId);
    assert.match(joined.memberId, /^client-[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/);
    assert.equal(joined.members.length, 1);
  });

  test('ends in Empty when everybody has left during the delay', async () => {
    const rig = new GroupRig();
    const asked = rig.join();
    const [described] = rig.group.describe().members;
    assert.equal(rig.leave(described!.member.memberId), 'NONE');
    await settle();
    assert.equal(errorIn(asked), 'UNKNOWN_MEMBER_ID');
    await rig.clock.advance(3000);
    assert.equal(rig.group.state, 'Empty');
    assert.equal(rig.group.generation, 1);
    assert.ok(rig.group.unused);
  });
});

describe('the leader', () => {
  test('alone is told the members, with the metadata of the chosen protocol', async () => {
    const rig = new GroupRig(noDelay);
    const asked = [rig.join(), rig.join({ protocols: [{ name: 'range', metadata: Buffer.from('second') }] })];
    await rig.clock.advance(1);
    const [leader, follower] = asked.map(answered) as [JoinAnswer, JoinAnswer];
    assert.equal(leader.leader, leader.memberId);
    assert.equal(follower.leader, leader.memberId);
    assert.deepEqual(follower.members, []);
    assert.deepEqual(leader.members, [
      { memberId: leader.memberId, groupInstanceId: null, metadata: subscription('orders') },
      { memberId: follower.memberId, groupInstanceId: null, metadata: Buffer.from('second') },
    ]);
  });

  test('is another member when it does not rejoin', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const again = rig.join({
      memberId: follower.memberId,
      protocols: [{ name: 'range', metadata: Buffer.from('changed') }],
    });
    for (let i = 0; i < 6; i++) {
      await rig.clock.advance(9_999);
      assert.equal(rig.heartbeat(leader), 'REBALANCE_IN_PROGRESS'); // alive, but it does not rejoin
    }
    await rig.clock.advance(10);
    const joined = answered(again);
    assert.equal(joined.leader, follower.memberId);
    assert.deepEqual(
      joined.members.map(({ memberId }) => memberId),
      [follower.memberId],
    );
    assert.equal(rig.heartbeat(leader), 'UNKNOWN_MEMBER_ID');
  });
});

describe('the protocol', () => {
  const offering = (...names: string[]) => ({ protocols: names.map(name => ({ name, metadata: Buffer.from(name) })) });

  test('is the one that most members prefer among those that all have', async () => {
    const rig = new GroupRig();
    const [joined] = await rig.stable(
      offering('sticky', 'range'),
      offering('range', 'sticky', 'roundrobin'),
      offering('roundrobin', 'range', 'sticky'),
    );
    assert.equal(joined?.protocolName, 'range');
  });

  test('must be shared with all members, and of their type', async () => {
    const rig = new GroupRig();
    await rig.stable(offering('range'));
    const refused = [
      rig.join(offering('sticky')),
      rig.join({ protocolType: 'connect' }),
      rig.join({ protocolType: '' }),
      rig.join(offering()),
    ];
    await settle();
    assert.deepEqual(refused.map(errorIn), Array(4).fill('INCONSISTENT_GROUP_PROTOCOL'));
    assert.equal(rig.group.state, 'Stable');
  });

  test('of another type is fine once the group is empty', async () => {
    const rig = new GroupRig();
    const [joined] = await rig.stable(offering('range'));
    rig.leave(joined!.memberId);
    await settle();
    assert.equal(rig.group.state, 'Empty');
    const [again] = await rig.stable({ protocolType: 'connect', ...offering('compatible') });
    assert.equal(again?.protocolType, 'connect');
    assert.equal(again?.generationId, 3);
  });

  test('named twice counts once, by its first metadata', async () => {
    const rig = new GroupRig();
    const [joined] = await rig.stable({
      protocols: [
        { name: 'range', metadata: Buffer.from('first') },
        { name: 'range', metadata: Buffer.from('second') },
      ],
    });
    assert.equal(joined?.members[0]?.metadata.toString(), 'first');
    rig.leave(joined!.memberId);
    assert.equal(rig.group.size, 0);
  });
});

describe('a member id', () => {
  test('is handed out first from version 4 on (KIP-394)', async () => {
    const rig = new GroupRig(noDelay);
    const asked = rig.join({ version: 4, clientId: 'app' });
    await settle();
    assert.equal(errorIn(asked), 'MEMBER_ID_REQUIRED');
    const { memberId } = asked.answer!;
    assert.match(memberId, /^app-/);
    assert.equal(rig.group.size, 0);
    const joining = rig.join({ version: 4, memberId });
    await rig.clock.advance(1);
    assert.equal(answered(joining).memberId, memberId);
  });

  test('handed out and not used is forgotten after a session timeout', async () => {
    const rig = new GroupRig();
    const asked = rig.join({ version: 4 });
    await rig.clock.advance(9_999);
    assert.ok(!rig.group.unused);
    await rig.clock.advance(1);
    assert.ok(rig.group.unused);
    assert.equal(rig.unused, 1);
    const late = rig.join({ version: 4, memberId: asked.answer!.memberId });
    await settle();
    assert.equal(errorIn(late), 'UNKNOWN_MEMBER_ID');
  });

  test('handed out holds a rebalance up until it is used', async () => {
    const rig = new GroupRig();
    const [first] = (await rig.stable({})) as [JoinAnswer];
    const asked = rig.join({ version: 4 });
    const rejoining = rig.join({ memberId: first.memberId });
    await settle();
    assert.equal(rig.group.state, 'PreparingRebalance');
    assert.equal(errorIn(rejoining), undefined);
    const joining = rig.join({ version: 4, memberId: asked.answer!.memberId });
    await settle();
    assert.equal(answered(rejoining).members.length, 2);
    answered(joining);
  });

  test('handed out, whose holder leaves, holds nothing up any more', async () => {
    const rig = new GroupRig();
    const [first] = (await rig.stable({})) as [JoinAnswer];
    const asked = rig.join({ version: 4 });
    const rejoining = rig.join({ memberId: first.memberId });
    await settle();
    assert.equal(rig.leave(asked.answer!.memberId), 'NONE');
    await settle();
    assert.equal(answered(rejoining).members.length, 1);
  });

  test('that nobody knows is refused', async () => {
    const rig = new GroupRig();
    await rig.stable({});
    const asked = rig.join({ memberId: 'made-up' });
    await settle();
    assert.equal(errorIn(asked), 'UNKNOWN_MEMBER_ID');
    assert.equal(asked.answer?.memberId, 'made-up');
    assert.equal(rig.group.state, 'Stable');
  });
});

describe('rejoining', () => {
  test('a stable group unchanged, a follower is told the generation again', async () => {
    const rig = new GroupRig();
    const [, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const again = rig.join({ memberId: follower.memberId });
    await settle();
    assert.deepEqual(answered(again), follower);
    assert.equal(rig.group.state, 'Stable');
  });

  test('a stable group, the leader begins a rebalance', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const again = [rig.join({ memberId: leader.memberId })];
    await settle();
    assert.equal(rig.group.state, 'PreparingRebalance');
    assert.equal(rig.heartbeat(follower), 'REBALANCE_IN_PROGRESS');
    again.push(rig.join({ memberId: follower.memberId }));
    await settle();
    assert.deepEqual(
      again.map(answered).map(({ generationId }) => generationId),
      [2, 2],
    );
    await rig.complete(again.map(answered));
  });

  test('with other metadata, a follower begins a rebalance', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    rig.join({ memberId: follower.memberId, protocols: [{ name: 'range', metadata: subscription('payments') }] });
    assert.equal(rig.group.state, 'PreparingRebalance');
    const again = rig.join({ memberId: leader.memberId });
    await settle();
    assert.deepEqual(answered(again).members[1]?.metadata, subscription('payments'));
  });

  test('before the assignment is there, unchanged: told the generation again; changed: a rebalance', async () => {
    const rig = new GroupRig(noDelay);
    const asked = [rig.join(), rig.join()];
    await rig.clock.advance(1);
    const [leader, follower] = asked.map(answered) as [JoinAnswer, JoinAnswer];
    const again = rig.join({ memberId: leader.memberId });
    await settle();
    assert.deepEqual(answered(again), leader);
    const waiting = rig.sync(follower);
    await settle();
    rig.join({ memberId: leader.memberId, protocols: [{ name: 'range', metadata: Buffer.from('other') }] });
    await settle();
    assert.equal(rig.group.state, 'PreparingRebalance');
    assert.equal(errorIn(waiting), 'REBALANCE_IN_PROGRESS');
  });

  test('twice, the request that waited is answered too', async () => {
    const rig = new GroupRig();
    const [leader, follower] = (await rig.stable({}, {})) as [JoinAnswer, JoinAnswer];
    const first = rig.join({ memberId: leader.memberId });
    const second = rig.join({ memberId: leader.memberId });
    await settle();
    assert.equal(errorIn(first), 'REBALANCE_IN_PROGRESS');
    assert.equal(errorIn(second), undefined);
    rig.join({ memberId: follower.memberId });
    await settle();
    assert.equal(answered(second).members.length, 2);
  });

  test('members who do so keep their ids and raise the generation by one', async () => {
    const rig = new GroupRig();
    let joined = await rig.stable({}, {}, {});
    for (let generation = 2; generation < 5; generation++) {
      const asked = joined.map(({ memberId }) => rig.join({ memberId }));
      await settle();
      const next = asked.map(answered);
      assert.deepEqual(
        next.map(({ memberId }) => memberId),
        joined.map(({ memberId }) => memberId),
      );
      assert.ok(next.every(({ generationId }) => generationId === generation));
      await rig.complete(next);
      joined = next;
    }
    assert.equal(rig.rebalances, 4);
  });
});

describe('the size of a group', () => {
  test('has a limit for new members', async () => {
    const rig = new GroupRig({ groupMaxSize: 2 });
    const joined = await rig.stable({}, {});
    const refused = rig.join();
    await settle();
    assert.equal(errorIn(refused), 'GROUP_MAX_SIZE_REACHED');
    assert.equal(refused.answer?.memberId, '');
    rig.leave(joined[1]!.memberId);
    const welcome = rig.join();
    rig.join({ memberId: joined[0]!.memberId });
    await settle();
    answered(welcome);
  });

  test('over a limit that has shrunk: whoever rejoins first stays', async () => {
    const before = new GroupRig();
    const joined = await before.stable({}, {}, {});
    const rig = new GroupRig({ groupMaxSize: 2 }, before.saved.at(-1));
    assert.equal(rig.group.state, 'PreparingRebalance');
    const asked = joined.map(({ memberId }) => rig.join({ memberId }));
    await settle();
    assert.deepEqual(asked.map(errorIn), ['NONE', 'NONE', 'GROUP_MAX_SIZE_REACHED']);
    assert.equal(rig.group.size, 2);
  });

  test('and its memory have a limit, and nothing is charged for who has gone', async () => {
    const rig = new GroupRig(noDelay, undefined, 40_000);
    const empty = rig.memory.used;
    const fits = rig.join({ protocols: [{ name: 'range', metadata: Buffer.alloc(30_000) }] });
    const tooMuch = rig.join({ protocols: [{ name: 'range', metadata: Buffer.alloc(10_000) }] });
    await rig.clock.advance(1);
    assert.equal(errorIn(tooMuch), 'COORDINATOR_NOT_AVAILABLE');
    await rig.complete([answered(fits)]);
    assert.ok(rig.memory.used > 30_000);
    rig.leave(answered(fits).memberId);
    await settle();
    assert.equal(rig.memory.used, empty);
    rig.join({ version: 4 });
    assert.ok(rig.memory.used > empty);
    rig.group.close();
    assert.equal(rig.memory.used, 0);
    assert.equal(rig.clock.pending, 0);
  });

  test('counts what is absurd as one member', async () => {
    const rig = new GroupRig(noDelay);
    const asked = rig.join({ protocols: [{ name: 'range', metadata: Buffer.alloc(2 ** 20) }] });
    await settle();
    assert.equal(errorIn(asked), 'INVALID_REQUEST');
    assert.ok(rig.group.unused);
  });
});
