// A group with a clock and a store that the test holds in its hands.
import assert from 'node:assert/strict';
import { pino } from 'pino';
import { Group, type GroupHost } from '../src/broker/groups/group.ts';
import { type GroupSettings, MemoryBudget } from '../src/broker/groups/limits.ts';
import type { JoinAnswer, JoinRequest, SyncAnswer } from '../src/broker/groups/requests.ts';
import { ErrorCode, errorOf } from '../src/protocol/errors.ts';
import type { StoredGroup } from '../src/storage/groups.ts';
import { StorageError } from '../src/storage/write-lane.ts';
import { ManualClock, settle } from './manual-clock.ts';

export interface JoinOptions extends Partial<JoinRequest> {
  readonly clientId?: string;
  readonly version?: number;
}

export interface Asked<T> {
  answer: T | undefined;
}

export const noDelay: Partial<GroupSettings> = { groupInitialRebalanceDelayMs: 0 };

export class GroupRig {
  readonly clock = new ManualClock();
  readonly saved: StoredGroup[] = [];
  readonly memory: MemoryBudget;
  readonly group: Group;
  rebalances = 0;
  unused = 0;
  /** 'hold' keeps saves waiting until `release`. */
  saving: 'work' | 'fail' | 'hold' = 'work';
  #held: (() => void)[] = [];

  constructor(settings: Partial<GroupSettings> = {}, stored?: StoredGroup, memoryBytes = 16 * 1024 * 1024) {
    this.memory = new MemoryBudget(memoryBytes);
    const host: GroupHost = {
      settings: {
        groupInitialRebalanceDelayMs: 3000,
        groupMinSessionTimeoutMs: 6000,
        groupMaxSessionTimeoutMs: 1_800_000,
        groupMaxSize: 100,
        offsetsRetentionMinutes: 10_080,
        offsetMetadataMaxBytes: 4096,
        groupMemoryBytes: memoryBytes,
        ...settings,
      },
      clock: this.clock,
      memory: this.memory,
      logger: pino({ level: 'silent' }),
      save: async group => {
        if (this.saving === 'hold') await new Promise<void>(resolve => this.#held.push(resolve));
        if (this.saving === 'fail') throw new StorageError('the test says no');
        this.saved.push(group);
      },
      onRebalanced: () => {
        this.rebalances++;
      },
      onUnused: () => {
        this.unused++;
      },
    };
    this.group = new Group('group', host, stored);
  }

  async release(): Promise<void> {
    this.saving = this.saving === 'hold' ? 'work' : this.saving;
    for (const go of this.#held.splice(0)) go();
    await settle();
  }

  /** Version 3 unless told otherwise: a new member joins at once. */
  join(options: JoinOptions = {}): Asked<JoinAnswer> {
    const { clientId = 'client', version = 3, ...request } = options;
    const asked: Asked<JoinAnswer> = { answer: undefined };
    void this.group
      .join(
        {
          sessionTimeoutMs: 10_000,
          rebalanceTimeoutMs: 60_000,
          memberId: '',
          groupInstanceId: null,
          protocolType: 'consumer',
          protocols: [{ name: 'range', metadata: subscription('orders') }],
          reason: null,
          ...request,
        },
        { clientId, clientHost: '127.0.0.1' },
        { memberIdFirst: version >= 4, skipsAssignment: version >= 9 },
      )
      .then(answer => {
        assert.equal(asked.answer, undefined);
        asked.answer = answer;
      });
    return asked;
  }

  sync(
    joined: JoinAnswer,
    assignments: Record<string, string> = {},
    options: { groupInstanceId?: string; protocolName?: string; protocolType?: string; generationId?: number } = {},
  ): Asked<SyncAnswer> {
    const asked: Asked<SyncAnswer> = { answer: undefined };
    void this.group
      .sync({
        generationId: joined.generationId,
        memberId: joined.memberId,
        groupInstanceId: null,
        protocolType: null,
        protocolName: null,
        assignments: Object.entries(assignments).map(([memberId, text]) => ({
          memberId,
          assignment: Buffer.from(text),
        })),
        ...options,
      })
      .then(answer => {
        assert.equal(asked.answer, undefined);
        asked.answer = answer;
      });
    return asked;
  }

  heartbeat(joined: JoinAnswer, groupInstanceId: string | null = null): string {
    return nameOf(this.group.heartbeat({ ...joined, groupInstanceId }));
  }

  leave(memberId: string, groupInstanceId: string | null = null): string {
    return nameOf(this.group.leave([{ memberId, groupInstanceId, reason: null }])[0]!);
  }

  commit(memberId: string, generationId: number, groupInstanceId: string | null = null): string {
    return nameOf(this.group.admitCommit({ memberId, generationId, groupInstanceId }));
  }

  /** Makes a stable group of new members, the first of which leads; returns their answers to JoinGroup. */
  async stable(...members: JoinOptions[]): Promise<JoinAnswer[]> {
    const asked = members.map(options => this.join(options));
    await this.clock.advance(10_000); // past any first delay
    const joined = asked.map(answered);
    await this.complete(joined);
    return joined;
  }

  /** All of a generation ask for their assignment, which is `to ` and their member id. */
  async complete(joined: readonly JoinAnswer[]): Promise<void> {
    const assignments = Object.fromEntries(joined.map(({ memberId }) => [memberId, `to ${memberId}`]));
    const synced = joined.map(answer => this.sync(answer, answer.leader === answer.memberId ? assignments : {}));
    await settle();
    synced.forEach((asked, i) => {
      assert.equal(answered(asked).assignment.toString(), `to ${joined[i]!.memberId}`);
    });
    assert.equal(this.group.state, 'Stable');
  }
}

/** The answer without error. */
export function answered<T extends { errorCode: number }>(asked: Asked<T>): T {
  assert.ok(asked.answer, 'not answered');
  assert.equal(nameOf(asked.answer.errorCode), 'NONE');
  return asked.answer;
}

/** The name of the error answered with, or undefined while the request waits. */
export function errorIn(asked: Asked<{ errorCode: number }>): string | undefined {
  return asked.answer && nameOf(asked.answer.errorCode);
}

export function nameOf(errorCode: number): string {
  return errorCode === ErrorCode.NONE ? 'NONE' : errorOf(errorCode).name;
}

/** JoinGroup metadata of a consumer of `topics`, as version 0 of the consumer protocol has it. */
export function subscription(...topics: string[]): Buffer {
  const head = Buffer.alloc(6);
  head.writeInt32BE(topics.length, 2);
  const names = topics.map(topic => {
    const length = Buffer.alloc(2);
    length.writeInt16BE(Buffer.byteLength(topic));
    return Buffer.concat([length, Buffer.from(topic)]);
  });
  return Buffer.concat([head, ...names, Buffer.from([0xff, 0xff, 0xff, 0xff])]);
}
