// Random members doing random things, at random times, with a store that fails or takes its time. What must hold
// whatever they do: one leader per generation, one view of a generation, assignments as the leader gave them, no
// request left hanging, and nothing left behind.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Asked, GroupRig, nameOf } from '../../../test/group-rig.ts';
import { settle } from '../../../test/manual-clock.ts';
import type { JoinAnswer, SyncAnswer } from './requests.ts';

interface Actor {
  readonly groupInstanceId: string | null;
  memberId: string;
  joined: JoinAnswer | undefined;
  life: number;
}

interface Generation {
  leader: string;
  protocol: string;
  /** What the leader sent first, by member id. */
  assignment: Map<string, string> | undefined;
}

const protocolChoices = [['range'], ['range', 'sticky'], ['sticky', 'range']];

const actor = fc.nat({ max: 5 });
const operation = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('join' as const), actor, choice: fc.nat({ max: 2 }) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('sync' as const), actor }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('heartbeat' as const), actor }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('commit' as const), actor }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('leave' as const), actor }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('restart' as const), actor }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.nat({ max: 12_000 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('store' as const), mode: fc.constantFrom('work', 'fail', 'hold') }),
  },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

class Run {
  readonly rig = new GroupRig({ groupInitialRebalanceDelayMs: 500, groupMaxSize: 5 });
  readonly actors: Actor[] = [null, null, null, 'a', 'b', 'c'].map(groupInstanceId => ({
    groupInstanceId,
    memberId: '',
    joined: undefined,
    life: 0,
  }));
  readonly generations = new Map<number, Generation>();
  readonly joins: Asked<JoinAnswer>[] = [];
  readonly syncs: Asked<SyncAnswer>[] = [];
  /** Group instance ids of static members by every member id they have had. */
  readonly instances = new Map<string, string>();
  #unseen: (() => boolean)[] = [];

  async do(what: Operation): Promise<void> {
    if (what.kind === 'wait') await this.rig.clock.advance(what.ms);
    else if (what.kind === 'store') {
      if (this.rig.saving === 'hold') await this.rig.release();
      this.rig.saving = what.mode as GroupRig['saving'];
    } else this.act(what);
    await settle();
    this.see();
    this.check();
  }

  act(what: Exclude<Operation, { kind: 'wait' | 'store' }>): void {
    const each = this.actors[what.actor]!;
    const { groupInstanceId, joined } = each;
    switch (what.kind) {
      case 'join': {
        const protocols = protocolChoices[what.choice]!.map(name => ({ name, metadata: Buffer.from(name) }));
        const asked = this.rig.join({ memberId: each.memberId, groupInstanceId, protocols, version: 9 });
        this.joins.push(asked);
        // Whoever has restarted in the meantime hears nothing any more.
        const { life } = each;
        const ear = () => (each.life === life ? each : { ...each });
        this.#unseen.push(() => asked.answer !== undefined && this.onJoined(ear(), asked.answer));
        break;
      }
      case 'sync': {
        if (!joined) return;
        const leads = joined.leader === joined.memberId && !joined.skipAssignment;
        const assignments = leads
          ? Object.fromEntries(joined.members.map(({ memberId }, i) => [memberId, `${this.syncs.length}.${i}`]))
          : {};
        const generation = this.generations.get(joined.generationId)!;
        const taken =
          leads &&
          this.rig.group.state === 'CompletingRebalance' &&
          this.rig.group.generation === joined.generationId &&
          this.rig.group.leader === joined.memberId;
        if (taken) generation.assignment ??= new Map(Object.entries(assignments));
        const asked = this.rig.sync(joined, assignments, groupInstanceId === null ? {} : { groupInstanceId });
        this.syncs.push(asked);
        this.#unseen.push(() => asked.answer !== undefined && this.onSynced(joined, asked.answer));
        break;
      }
      case 'heartbeat':
        if (joined) this.onError(each, this.rig.heartbeat(joined, groupInstanceId));
        break;
      case 'commit':
        if (joined) this.onError(each, this.rig.commit(joined.memberId, joined.generationId, groupInstanceId));
        break;
      case 'leave':
        if (each.memberId !== '') this.rig.leave(each.memberId, groupInstanceId);
        each.memberId = '';
        each.joined = undefined;
        break;
      case 'restart':
        each.life++;
        each.memberId = '';
        each.joined = undefined;
        break;
    }
  }

  see(): void {
    this.#unseen = this.#unseen.filter(seen => !seen());
  }

  onJoined(each: Actor, answer: JoinAnswer): true {
    const error = nameOf(answer.errorCode);
    if (error === 'MEMBER_ID_REQUIRED') each.memberId = answer.memberId;
    this.onError(each, error);
    if (error !== 'NONE') return true;
    assert.ok(answer.memberId.length > 0);
    if (each.groupInstanceId !== null) this.instances.set(answer.memberId, each.groupInstanceId);
    each.memberId = answer.memberId;
    each.joined = answer;
    const known = this.generations.get(answer.generationId);
    if (!known) {
      this.generations.set(answer.generationId, {
        leader: answer.leader,
        protocol: answer.protocolName!,
        assignment: undefined,
      });
    } else {
      assert.equal(answer.protocolName, known.protocol);
      // The leader of a generation changes its id when it is static and comes back.
      const instanceOf = (memberId: string) => this.instances.get(memberId) ?? memberId.replace(/-.*/, '');
      if (answer.leader !== known.leader) assert.equal(instanceOf(answer.leader), instanceOf(known.leader));
    }
    if (answer.leader === answer.memberId) {
      assert.ok(answer.members.some(({ memberId }) => memberId === answer.memberId));
      assert.equal(new Set(answer.members.map(({ memberId }) => memberId)).size, answer.members.length);
    } else {
      assert.deepEqual(answer.members, []);
    }
    return true;
  }

  onSynced(joined: JoinAnswer, answer: SyncAnswer): true {
    if (nameOf(answer.errorCode) !== 'NONE') return true;
    const { assignment, protocol } = this.generations.get(joined.generationId)!;
    assert.ok(assignment, 'an assignment that no leader gave');
    assert.equal(answer.protocolName, protocol);
    const instance = this.instances.get(joined.memberId);
    const ids = [...assignment.keys()].filter(
      id => id === joined.memberId || (instance !== undefined && id.startsWith(`${instance}-`)),
    );
    assert.equal(answer.assignment.toString(), ids.map(id => assignment.get(id)).at(-1) ?? '');
    return true;
  }

  onError(each: Actor, error: string): void {
    if (error === 'UNKNOWN_MEMBER_ID' || error === 'FENCED_INSTANCE_ID') {
      each.memberId = '';
      each.joined = undefined;
    }
  }

  check(): void {
    const { group } = this.rig;
    const members = group.describe().members.map(({ member }) => member);
    const ids = new Set(members.map(({ memberId }) => memberId));
    assert.equal(group.size, ids.size);
    // Five may rejoin; static members who are away keep their places beside them.
    assert.ok(members.filter(({ join }) => join).length <= 5);
    if (group.state !== 'PreparingRebalance') assert.ok(group.size <= 5 + 3);
    if (group.state === 'Empty') assert.equal(group.size, 0);
    if (group.state === 'Stable' || group.state === 'CompletingRebalance') {
      assert.ok(group.size > 0);
      assert.ok(ids.has(group.leader!));
    }
    const instances = members.flatMap(({ groupInstanceId }) => groupInstanceId ?? []);
    assert.equal(new Set(instances).size, instances.length);
    for (const { join, sync, session } of members) {
      assert.ok(session, 'a member without a session');
      if (join && group.state !== 'PreparingRebalance') {
        // Only a static member that is back waits elsewhere: for its new id to be stored.
        assert.equal(group.state, 'Stable');
        assert.notEqual(this.rig.saving, 'work');
      }
      if (sync) assert.equal(group.state, 'CompletingRebalance');
    }
  }

  async end(): Promise<void> {
    await this.rig.release();
    this.rig.saving = 'work';
    await this.rig.clock.advance(3_600_000);
    this.rig.group.retryStoringEmpty();
    await settle();
    this.see();
    for (const asked of [...this.joins, ...this.syncs]) assert.ok(asked.answer, 'a request was never answered');
    assert.equal(this.rig.group.state, 'Empty');
    assert.ok(this.rig.group.unused);
    assert.equal(this.rig.clock.pending, 0);
    this.rig.group.close();
    assert.equal(this.rig.memory.used, 0);
  }
}

test('invariants of a group under random members', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 120, size: 'max' }), async operations => {
      const run = new Run();
      for (const what of operations) await run.do(what);
      await run.end();
    }),
    {
      numRuns: Number(process.env.MILLRACE_PROPERTY_RUNS ?? 100),
      includeErrorInReport: true,
      interruptAfterTimeLimit: 120_000,
    },
  );
});
