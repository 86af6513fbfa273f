// All groups of this broker, for the handlers. In memory are only groups that have members or are about to; what
// remains of the others is in Postgres: a row in kafka.consumer_groups, committed offsets, or both. A group comes into
// memory when somebody joins it, and leaves it when it is empty and that is stored. Answers are error codes of the
// protocol; what Postgres cannot do at the moment becomes COORDINATOR_NOT_AVAILABLE, which clients try again.
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { ErrorCode } from '../../protocol/errors.ts';
import type { GroupStore, StoredGroup } from '../../storage/groups.ts';
import type { CommittedOffset, Offsets, OffsetsWanted } from '../../storage/offsets.ts';
import type { Topic, Topics } from '../../storage/topics.ts';
import { StorageError } from '../../storage/write-lane.ts';
import { type Clock, DeadlineError, systemClock, type Timer, withDeadline } from './clock.ts';
import { Group, type GroupHost, type GroupState } from './group.ts';
import {
  type GroupSettings,
  groupBytes,
  MemoryBudget,
  maxNameBytes,
  sweepIntervalMs,
  writeTimeoutMs,
} from './limits.ts';
import type { Member } from './member.ts';
import { GroupMetrics } from './metrics.ts';
import {
  type Client,
  type JoinAnswer,
  type JoinFeatures,
  type JoinRequest,
  joinRefused,
  type LeavingMember,
  type SyncAnswer,
  type SyncRequest,
  syncRefused,
} from './requests.ts';
import type { MemberIdentity } from './roster.ts';

export interface GroupCoordinatorOptions {
  readonly store: GroupStore;
  readonly offsets: Offsets;
  readonly topics: Topics;
  readonly settings: GroupSettings;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly clock?: Clock;
}

export interface CommitRequest extends MemberIdentity {
  readonly groupId: string;
  readonly generationId: number;
  /** Version 9 and later know the error for a group that does not exist. */
  readonly knowsGroupIdNotFound: boolean;
}

export interface DescribedGroup {
  readonly groupId: string;
  readonly errorCode: number;
  readonly state: GroupState;
  readonly protocolType: string;
  readonly protocol: string;
  readonly members: readonly { readonly member: Member; readonly metadata: Buffer }[];
}

export interface ListedGroup {
  readonly groupId: string;
  readonly protocolType: string;
  readonly state: GroupState;
}

export class GroupCoordinator {
  readonly #options: GroupCoordinatorOptions;
  readonly #clock: Clock;
  readonly #memory: MemoryBudget;
  readonly #metrics: GroupMetrics;
  readonly #host: GroupHost;
  readonly #groups = new Map<string, Group>();
  readonly #loading = new Map<string, Promise<number>>();
  #phase: 'new' | 'serving' | 'stopped' = 'new';
  #sweepTimer: Timer | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  /** What has been logged and not yet been over, so that it is logged once. */
  #toldFull = false;
  #toldLate = false;

  constructor(options: GroupCoordinatorOptions) {
    const { store, settings, logger, registry, clock = systemClock } = options;
    this.#options = options;
    this.#clock = clock;
    this.#memory = new MemoryBudget(settings.groupMemoryBytes);
    this.#metrics = new GroupMetrics(registry, () => this.#groups.values());
    this.#host = {
      settings,
      clock,
      logger,
      memory: this.#memory,
      save: (group: StoredGroup) => store.save(group),
      onRebalanced: () => this.#metrics.rebalances.inc(),
      onUnused: group => this.#forget(group),
    };
  }

  /** Loads the groups that had members when the last broker ended; until then requests are told to wait. */
  async start(): Promise<void> {
    const stored = await this.#options.store.loadAll();
    if (this.#phase !== 'new') return;
    for (const group of stored) this.#groups.set(group.groupId, new Group(group.groupId, this.#host, group));
    this.#phase = 'serving';
    this.#scheduleSweep();
    if (stored.length > 0) this.#options.logger.info({ groups: stored.length }, 'consumer groups go on');
  }

  /** Answers every request that waits with an error that clients try again, and ends the writes under way. */
  async stop(): Promise<void> {
    this.#phase = 'stopped';
    this.#sweepTimer?.cancel();
    for (const group of [...this.#groups.values()]) this.#forget(group);
    await this.#sweeping;
    await this.#options.store.idle();
    await this.#options.offsets.idle();
  }

  // ---- membership

  async join(groupId: string, request: JoinRequest, client: Client, features: JoinFeatures): Promise<JoinAnswer> {
    const errorCode = this.#check(groupId) || this.#checkJoin(request);
    if (errorCode !== ErrorCode.NONE) return joinRefused(errorCode, request.memberId);
    let group = this.#groups.get(groupId);
    if (!group && request.memberId !== '') return joinRefused(ErrorCode.UNKNOWN_MEMBER_ID, request.memberId);
    while (!group) {
      const loadError = await this.#load(groupId);
      if (loadError !== ErrorCode.NONE) return joinRefused(loadError, request.memberId);
      group = this.#groups.get(groupId); // unless another request that waited was refused, and it was forgotten
    }
    const answer = group.join(request, { ...client, clientId: client.clientId.replaceAll('\0', '\ufffd') }, features);
    if (group.unused) this.#forget(group);
    return answer;
  }

  async sync(groupId: string, request: SyncRequest): Promise<SyncAnswer> {
    const errorCode = this.#check(groupId);
    if (errorCode !== ErrorCode.NONE) return syncRefused(errorCode);
    return this.#groups.get(groupId)?.sync(request) ?? syncRefused(ErrorCode.UNKNOWN_MEMBER_ID);
  }

  heartbeat(groupId: string, request: MemberIdentity & { readonly generationId: number }): number {
    const errorCode = this.#check(groupId);
    // While groups are loaded nobody's session runs.
    if (errorCode === ErrorCode.COORDINATOR_LOAD_IN_PROGRESS) return ErrorCode.NONE;
    return errorCode || (this.#groups.get(groupId)?.heartbeat(request) ?? ErrorCode.UNKNOWN_MEMBER_ID);
  }

  /** An error code for all, or one for each. */
  leave(groupId: string, leaving: readonly LeavingMember[]): { errorCode: number; memberErrors: readonly number[] } {
    const errorCode = this.#check(groupId);
    if (errorCode !== ErrorCode.NONE) return { errorCode, memberErrors: [] };
    const group = this.#groups.get(groupId);
    return { errorCode, memberErrors: group?.leave(leaving) ?? leaving.map(() => ErrorCode.UNKNOWN_MEMBER_ID) };
  }

  // ---- administration

  async describe(groupIds: readonly string[]): Promise<DescribedGroup[]> {
    const absent = groupIds.filter(groupId => !this.#check(groupId, true) && !this.#groups.has(groupId));
    const [stored, failure] = await this.#tryTo(() => this.#protocolTypes(absent));
    return groupIds.map(groupId => {
      const described = { groupId, errorCode: ErrorCode.NONE as number, protocolType: '', protocol: '', members: [] };
      const errorCode = this.#check(groupId, true);
      if (errorCode !== ErrorCode.NONE) return { ...described, errorCode, state: 'Dead' };
      const group = this.#groups.get(groupId);
      if (group)
        return { ...described, ...group.describe(), state: group.state, protocolType: group.protocolType ?? '' };
      if (!stored) return { ...described, errorCode: failure, state: 'Dead' };
      const protocolType = stored.get(groupId);
      if (protocolType !== undefined) return { ...described, state: 'Empty', protocolType };
      return { ...described, errorCode: ErrorCode.GROUP_ID_NOT_FOUND, state: 'Dead' };
    });
  }

  async list(): Promise<{ errorCode: number; groups: readonly ListedGroup[] }> {
    const errorCode = this.#unavailable();
    if (errorCode !== ErrorCode.NONE) return { errorCode, groups: [] };
    const [stored, failure] = await this.#tryTo(() => this.#protocolTypes());
    if (!stored) return { errorCode: failure, groups: [] };
    const listed = new Map<string, ListedGroup>();
    for (const [groupId, protocolType] of stored) listed.set(groupId, { groupId, protocolType, state: 'Empty' });
    for (const { groupId, protocolType, state } of this.#groups.values()) {
      listed.set(groupId, { groupId, protocolType: protocolType ?? '', state });
    }
    return { errorCode: ErrorCode.NONE, groups: [...listed.values()] };
  }

  /** Returns an error code for each of `groupIds`. */
  async deleteGroups(groupIds: readonly string[]): Promise<Map<string, number>> {
    const outcome = new Map<string, number>();
    const forgotten = new Set<string>();
    const deletable: string[] = [];
    for (const groupId of new Set(groupIds)) {
      const group = this.#groups.get(groupId);
      const errorCode = this.#check(groupId, true);
      if (errorCode !== ErrorCode.NONE) outcome.set(groupId, errorCode);
      else if (group && group.state !== 'Empty') outcome.set(groupId, ErrorCode.NON_EMPTY_GROUP);
      else deletable.push(groupId);
      if (group?.state === 'Empty') {
        forgotten.add(groupId);
        this.#forget(group);
      }
    }
    if (deletable.length === 0) return outcome;
    const [found, failure] = await this.#tryTo(async () => {
      const withOffsets = await this.#options.offsets.deleteGroups(deletable);
      const stored = await this.#options.store.delete(deletable);
      return new Set([...withOffsets, ...stored, ...forgotten]);
    });
    for (const groupId of deletable) {
      if (!found) outcome.set(groupId, failure);
      else outcome.set(groupId, found.has(groupId) ? ErrorCode.NONE : ErrorCode.GROUP_ID_NOT_FOUND);
    }
    if (found) this.#options.logger.info({ groups: [...found] }, 'consumer groups have been deleted');
    return outcome;
  }

  // ---- offsets

  /** An error code for all, and those of the topics that no longer exist. */
  async commitOffsets(
    request: CommitRequest,
    offsets: readonly CommittedOffset[],
  ): Promise<{ errorCode: number; goneTopics: ReadonlySet<number> }> {
    const refuse = (errorCode: number) => ({ errorCode, goneTopics: new Set<number>() });
    // Not awaited when it is known at once: commits are written in the order in which this is called.
    const admission = this.#check(request.groupId, true) || this.#admitCommit(request);
    const errorCode = typeof admission === 'number' ? admission : await admission;
    if (errorCode !== ErrorCode.NONE) return refuse(errorCode);
    if (offsets.length === 0) return refuse(ErrorCode.NONE);
    const [goneTopics, failure] = await this.#tryTo(() =>
      withDeadline(this.#clock, writeTimeoutMs, this.#options.offsets.commit(request.groupId, offsets)),
    );
    if (!goneTopics) return refuse(failure);
    this.#toldLate = false;
    this.#metrics.commits.inc(offsets.length);
    return { errorCode: ErrorCode.NONE, goneTopics };
  }

  /** For each group an error code, and its offsets. `requireStable` waits for commits under way (KIP-447). */
  async fetchOffsets(
    wanted: readonly OffsetsWanted[],
    requireStable: boolean,
  ): Promise<Map<string, { errorCode: number; offsets: readonly CommittedOffset[] }>> {
    const served = wanted.filter(({ groupId }) => this.#check(groupId, true) === ErrorCode.NONE);
    const [found, failure] = await this.#tryTo(async () => {
      if (served.length === 0) return new Map<string, CommittedOffset[]>();
      if (requireStable) await withDeadline(this.#clock, writeTimeoutMs, this.#options.offsets.settled());
      return this.#options.offsets.fetch(served);
    });
    return new Map(
      wanted.map(({ groupId }) => {
        const errorCode = this.#check(groupId, true) || failure;
        return [groupId, { errorCode, offsets: (errorCode === ErrorCode.NONE && found?.get(groupId)) || [] }];
      }),
    );
  }

  /** An error code for all, and those of the topics that the group subscribes to, whose offsets stay. */
  async deleteOffsets(
    groupId: string,
    offsets: readonly { readonly topic: Topic; readonly partition: number }[],
  ): Promise<{ errorCode: number; subscribed: ReadonlySet<Topic> }> {
    const group = this.#groups.get(groupId);
    const subscribed = new Set<Topic>();
    const errorCode = this.#check(groupId);
    if (errorCode !== ErrorCode.NONE) return { errorCode, subscribed };
    if (group && group.state !== 'Empty') {
      if (!group.isConsumerGroup) return { errorCode: ErrorCode.NON_EMPTY_GROUP, subscribed };
      for (const { topic } of offsets) if (group.subscribed?.has(topic.name) ?? true) subscribed.add(topic);
    }
    const deletable = offsets.filter(({ topic }) => !subscribed.has(topic));
    const [known, failure] = await this.#tryTo(async () => {
      if (!group && !(await this.#isStored(groupId))) return false;
      if (deletable.length > 0) {
        await this.#options.offsets.delete(
          groupId,
          deletable.map(({ topic, partition }) => ({ topicId: topic.id, partition })),
        );
      }
      return true;
    });
    return { errorCode: known === false ? ErrorCode.GROUP_ID_NOT_FOUND : failure, subscribed };
  }

  // ---- within

  #unavailable(): number {
    if (this.#phase === 'serving') return ErrorCode.NONE;
    return this.#phase === 'new' ? ErrorCode.COORDINATOR_LOAD_IN_PROGRESS : ErrorCode.COORDINATOR_NOT_AVAILABLE;
  }

  /** Offsets may be kept under an empty group id; nobody can join that group. */
  #check(groupId: string, mayBeEmpty = false): number {
    if ((groupId === '' && !mayBeEmpty) || !isName(groupId)) return ErrorCode.INVALID_GROUP_ID;
    return this.#unavailable();
  }

  #checkJoin(request: JoinRequest): number {
    const { groupMinSessionTimeoutMs, groupMaxSessionTimeoutMs } = this.#options.settings;
    if (request.sessionTimeoutMs < groupMinSessionTimeoutMs || request.sessionTimeoutMs > groupMaxSessionTimeoutMs) {
      return ErrorCode.INVALID_SESSION_TIMEOUT;
    }
    const names = [request.protocolType, request.groupInstanceId ?? '', ...request.protocols.map(({ name }) => name)];
    return names.every(isName) ? ErrorCode.NONE : ErrorCode.INVALID_REQUEST;
  }

  /** Brings a group into memory, or makes it. */
  #load(groupId: string): Promise<number> {
    let loading = this.#loading.get(groupId);
    if (!loading) {
      loading = this.#tryTo(() => this.#options.store.load(groupId))
        .then(([stored, failure]) => {
          const errorCode = failure || this.#unavailable();
          if (errorCode !== ErrorCode.NONE) return errorCode;
          if (!this.#hasMemory()) return ErrorCode.COORDINATOR_NOT_AVAILABLE;
          this.#groups.set(groupId, new Group(groupId, this.#host, stored));
          return ErrorCode.NONE;
        })
        .finally(() => this.#loading.delete(groupId));
      this.#loading.set(groupId, loading);
    }
    return loading;
  }

  #hasMemory(): boolean {
    const fits = this.#memory.fits(groupBytes);
    if (!fits && !this.#toldFull) {
      this.#options.logger.warn(
        { groups: this.#groups.size, bytes: this.#memory.used },
        'no memory for another consumer group; see group.memory.bytes',
      );
    }
    this.#toldFull = !fits;
    return fits;
  }

  #forget(group: Group): void {
    group.close();
    if (this.#groups.get(group.groupId) === group) this.#groups.delete(group.groupId);
  }

  #admitCommit(request: CommitRequest): number | Promise<number> {
    const group = this.#groups.get(request.groupId);
    if (group) return group.admitCommit(request);
    return request.generationId < 0 ? ErrorCode.NONE : this.#refuseCommit(request);
  }

  /** Of somebody who takes itself for a member of a group that has none. */
  async #refuseCommit(request: CommitRequest): Promise<number> {
    const [known, failure] = await this.#tryTo(() => this.#isStored(request.groupId));
    if (known === undefined) return failure;
    if (known) return ErrorCode.UNKNOWN_MEMBER_ID;
    return request.knowsGroupIdNotFound ? ErrorCode.GROUP_ID_NOT_FOUND : ErrorCode.ILLEGAL_GENERATION;
  }

  async #isStored(groupId: string): Promise<boolean> {
    return (await this.#protocolTypes([groupId])).size > 0;
  }

  /** Of the groups in Postgres: all, or those of `groupIds`. A group that has only offsets has no protocol type. */
  async #protocolTypes(groupIds?: readonly string[]): Promise<Map<string, string>> {
    if (groupIds?.length === 0) return new Map();
    const { store, offsets } = this.#options;
    const [stored, withOffsets] = await Promise.all([
      store.list(groupIds),
      groupIds ? offsets.withOffsets(groupIds) : offsets.groups(),
    ]);
    const types = new Map<string, string>();
    for (const groupId of withOffsets) types.set(groupId, '');
    for (const { groupId, protocolType } of stored) types.set(groupId, protocolType);
    return types;
  }

  /** The result, or undefined and the error code to answer with. */
  async #tryTo<T>(work: () => Promise<T>): Promise<[T | undefined, number]> {
    try {
      return [await work(), ErrorCode.NONE];
    } catch (error) {
      if (error instanceof DeadlineError) {
        if (!this.#toldLate) this.#options.logger.warn('the database takes too long to commit offsets');
        this.#toldLate = true;
        return [undefined, ErrorCode.COORDINATOR_NOT_AVAILABLE];
      }
      if (!(error instanceof StorageError)) throw error;
      return [undefined, error.retriable ? ErrorCode.COORDINATOR_NOT_AVAILABLE : ErrorCode.UNKNOWN_SERVER_ERROR];
    }
  }

  #scheduleSweep(): void {
    this.#sweepTimer = this.#clock.after(sweepIntervalMs, () => {
      this.#sweeping = this.#sweep()
        .catch(error => this.#options.logger.error({ err: error }, 'the sweep of groups has failed'))
        .finally(() => {
          if (this.#phase === 'serving') this.#scheduleSweep();
        });
    });
  }

  async #sweep(): Promise<void> {
    const { store, offsets, topics, settings, logger } = this.#options;
    for (const group of this.#groups.values()) group.retryStoringEmpty();
    const live = [...this.#groups.keys()];
    const subscriptions = [...this.#groups.values()].flatMap(group => {
      if (group.state !== 'Stable' || group.subscribed === null) return [];
      return [{ groupId: group.groupId, topicIds: [...group.subscribed].flatMap(name => topics.get(name)?.id ?? []) }];
    });
    await this.#tryTo(async () => {
      const expired = await offsets.expire(settings.offsetsRetentionMinutes * 60_000, live, subscriptions);
      if (expired > 0) logger.info({ offsets: expired }, 'committed offsets have expired');
      this.#metrics.expired.inc(expired);
      await store.dropUnused(live);
    });
  }
}

/** A name that Postgres can store and index. */
function isName(text: string): boolean {
  return Buffer.byteLength(text) <= maxNameBytes && !text.includes('\0');
}
