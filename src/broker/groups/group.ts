// One group of the classic protocol (KIP-62, 134, 345, 394, 429, 559, 800, 814): who its members are, which generation
// they share, and what each was assigned. The leader among them assigns; the group only collects and hands on.
//
//             first join                      all have rejoined,             the leader's assignment
//                                             or the rebalance timeout       is committed to Postgres
//   Empty ─────────────────▶ PreparingRebalance ──────────▶ CompletingRebalance ──────────▶ Stable
//     ▲                        │           ▲                          │                       │
//     └── nobody has rejoined ─┘           └── somebody joins anew, ──┴───────────────────────┘
//                                              leaves or expires
//   Dead: deleted, or the coordinator has stopped. From every state, and to none.
//
// A generation begins on the way to CompletingRebalance, when every JoinGroup that waits is answered at once; every
// SyncGroup that waits is answered at once on the way to Stable. A request that waits is kept in its member (join,
// sync), and whatever ends the wait answers it: each is answered exactly once. Everything here runs to its end
// without waiting, except for saves; what a save finds when it is done may be another state or generation.
//
// It is one file because whatever may change the state has to be read together.
//
// Timers: a session per member, from its last sign of life; while it waits for an answer its expiry counts only if it
// is new (it cannot send heartbeats before it knows its id). A rebalance timeout for members to rejoin, the same again
// for them to ask for their assignment. Member ids handed out but not yet used to join (KIP-394) expire as sessions.
import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import { ErrorCode } from '../../protocol/errors.ts';
import type { StoredGroup } from '../../storage/groups.ts';
import { StorageError } from '../../storage/write-lane.ts';
import { type Clock, DeadlineError, type Timer, withDeadline } from './clock.ts';
import {
  type GroupSettings,
  groupBytes,
  type MemoryBudget,
  maxMemberBytes,
  newMemberJoinTimeoutMs,
  pendingMemberBytes,
  writeTimeoutMs,
} from './limits.ts';
import { bytesOf, copyOf, Member, ownProtocols } from './member.ts';
import {
  type Client,
  type JoinAnswer,
  type JoinFeatures,
  type JoinRequest,
  joinRefused,
  type LeavingMember,
  noBytes,
  type Protocol,
  type SyncAnswer,
  type SyncRequest,
  syncRefused,
} from './requests.ts';
import { type MemberIdentity, Roster } from './roster.ts';

export const groupStates = ['Empty', 'PreparingRebalance', 'CompletingRebalance', 'Stable', 'Dead'] as const;
export type GroupState = (typeof groupStates)[number];

/** What a group needs of its coordinator. */
export interface GroupHost {
  readonly settings: GroupSettings;
  readonly clock: Clock;
  readonly memory: MemoryBudget;
  readonly logger: Logger;
  save(group: StoredGroup): Promise<void>;
  onRebalanced(): void;
  /** Nobody is in the group any more, and that is stored. */
  onUnused(group: Group): void;
}

const consumerProtocolType = 'consumer';

export class Group {
  readonly groupId: string;
  readonly #host: GroupHost;
  #state: GroupState = 'Empty';
  #generation = 0;
  #protocolType: string | null = null;
  #protocol: string | null = null;
  #leader: string | null = null;
  readonly #members: Roster;
  /** Member ids handed out, not yet used to join. */
  readonly #pending = new Map<string, Timer>();
  /** Members whose JoinGroup waits. */
  #joined = 0;
  /** Members of this generation that have not asked for their assignment. */
  readonly #owingSync = new Set<string>();
  #joinTimer: Timer | undefined;
  #syncTimer: Timer | undefined;
  /** In the first rebalance after Empty: the delay that gives more members time to come. */
  #firstRebalance: { remainingMs: number; grown: boolean } | undefined;
  /** The generation whose assignment is being saved. */
  #assigning: number | undefined;
  #saves = 0;
  #storedEmpty = true;
  /** Null when it is not known. */
  #subscribed: ReadonlySet<string> | null = null;

  /** A stored group goes on where it was, with a full session timeout for every member. */
  constructor(groupId: string, host: GroupHost, stored?: StoredGroup) {
    this.groupId = groupId;
    this.#host = host;
    this.#members = new Roster(host.memory);
    host.memory.add(groupBytes + 2 * groupId.length);
    if (!stored) return;
    this.#generation = stored.generation;
    this.#protocolType = stored.protocolType;
    if (stored.members.length === 0) return;
    this.#storedEmpty = false;
    this.#protocol = stored.protocol;
    for (const member of stored.members) this.#add(new Member(member, false));
    if (stored.leader !== null && this.#members.get(stored.leader)) this.#leader = stored.leader;
    this.#state = 'Stable';
    this.#subscribed = this.isConsumerGroup ? this.#members.subscribed(this.#protocol) : null;
    for (const member of this.#members.all()) this.#expectLife(member);
    if (this.#members.size > host.settings.groupMaxSize) this.#prepareRebalance('the group is over its maximum size');
  }

  get state(): GroupState {
    return this.#state;
  }

  get generation(): number {
    return this.#generation;
  }

  get protocolType(): string | null {
    return this.#protocolType;
  }

  get leader(): string | null {
    return this.#leader;
  }

  get size(): number {
    return this.#members.size;
  }

  get isConsumerGroup(): boolean {
    return this.#protocolType === consumerProtocolType;
  }

  /** The topics its consumers subscribe to, as of this generation; null when that is not known. */
  get subscribed(): ReadonlySet<string> | null {
    return this.#subscribed;
  }

  /** Nothing would be lost by forgetting the group. */
  get unused(): boolean {
    return (
      this.#state === 'Dead' ||
      (this.#state === 'Empty' && this.#pending.size === 0 && this.#saves === 0 && this.#storedEmpty)
    );
  }

  // ---- requests

  join(request: JoinRequest, client: Client, features: JoinFeatures): Promise<JoinAnswer> {
    const { memberId, groupInstanceId } = request;
    const refuse = (errorCode: number, id = memberId) => Promise.resolve(joinRefused(errorCode, id));
    if (this.#state === 'Dead') return refuse(ErrorCode.COORDINATOR_NOT_AVAILABLE);
    const resident =
      memberId === '' && groupInstanceId !== null ? this.#members.idOfInstance(groupInstanceId) : memberId || undefined;
    if (!this.#hasRoomFor(resident)) {
      if (resident !== undefined) this.#turnAway(resident);
      return refuse(ErrorCode.GROUP_MAX_SIZE_REACHED, '');
    }
    if (!this.#supports(request.protocolType, request.protocols)) {
      return refuse(ErrorCode.INCONSISTENT_GROUP_PROTOCOL);
    }
    const bytes = bytesOf(request.protocols);
    if (bytes > maxMemberBytes) return refuse(ErrorCode.INVALID_REQUEST);
    if (!this.#host.memory.fits(bytes)) return refuse(ErrorCode.COORDINATOR_NOT_AVAILABLE);

    if (memberId === '') {
      if (groupInstanceId !== null) {
        return resident === undefined
          ? this.#admit(newMemberId(groupInstanceId), request, client)
          : this.#replaceStatic(this.#members.get(resident)!, request, client, features);
      }
      const newId = newMemberId(client.clientId);
      if (!features.memberIdFirst) return this.#admit(newId, request, client);
      this.#expectJoin(newId, request.sessionTimeoutMs);
      return refuse(ErrorCode.MEMBER_ID_REQUIRED, newId);
    }
    if (groupInstanceId === null && this.#forgetPending(memberId)) return this.#admit(memberId, request, client);
    const errorCode = this.#members.identify(request);
    if (errorCode !== ErrorCode.NONE) return refuse(errorCode);
    return this.#rejoin(this.#members.get(memberId)!, request, client);
  }

  sync(request: SyncRequest): Promise<SyncAnswer> {
    const errorCode = this.#checkSync(request);
    if (errorCode !== ErrorCode.NONE) return Promise.resolve(syncRefused(errorCode));
    const member = this.#members.get(request.memberId)!;
    if (this.#state === 'PreparingRebalance') {
      return Promise.resolve(syncRefused(ErrorCode.REBALANCE_IN_PROGRESS));
    }
    this.#owingSync.delete(member.memberId);
    if (this.#owingSync.size === 0) this.#syncTimer?.cancel();
    if (this.#state === 'Stable') {
      this.#expectLife(member);
      return Promise.resolve(this.#synced(member));
    }
    member.sync?.(syncRefused(ErrorCode.REBALANCE_IN_PROGRESS)); // the member has asked again, on another connection
    const answer = new Promise<SyncAnswer>(resolve => {
      member.sync = resolve;
    });
    if (member.memberId === this.#leader) this.#assign(request.assignments);
    return answer;
  }

  heartbeat(request: MemberIdentity & { readonly generationId: number }): number {
    if (this.#state === 'Dead') return ErrorCode.COORDINATOR_NOT_AVAILABLE;
    const errorCode = this.#members.identify(request);
    if (errorCode !== ErrorCode.NONE) return errorCode;
    if (request.generationId !== this.#generation) return ErrorCode.ILLEGAL_GENERATION;
    this.#expectLife(this.#members.get(request.memberId)!);
    return this.#state === 'PreparingRebalance' ? ErrorCode.REBALANCE_IN_PROGRESS : ErrorCode.NONE;
  }

  /** Returns an error code for each of `leaving`. */
  leave(leaving: readonly LeavingMember[]): number[] {
    if (this.#state === 'Dead') return leaving.map(() => ErrorCode.COORDINATOR_NOT_AVAILABLE);
    const left: string[] = [];
    const errorCodes = leaving.map(({ memberId, groupInstanceId, reason }) => {
      if (groupInstanceId === null && this.#forgetPending(memberId)) return ErrorCode.NONE;
      // An administrator removes a static member by its instance id alone.
      const id = memberId === '' ? this.#members.idOfInstance(groupInstanceId ?? '') : memberId;
      if (id === undefined) return ErrorCode.UNKNOWN_MEMBER_ID;
      const errorCode = this.#members.identify({ memberId: id, groupInstanceId });
      if (errorCode !== ErrorCode.NONE) return errorCode;
      this.#remove(this.#members.get(id)!);
      left.push(id);
      this.#host.logger.info({ group: this.groupId, member: id, reason: told(reason) }, 'a member has left its group');
      return ErrorCode.NONE;
    });
    if (left.length > 0) this.#rebalance('members have left');
    else this.#completeIfAllJoined();
    this.#tellIfUnused();
    return errorCodes;
  }

  /** Whether the group takes an offset commit, which is also a sign of life. */
  admitCommit(request: MemberIdentity & { readonly generationId: number }): number {
    if (this.#state === 'Dead') return ErrorCode.COORDINATOR_NOT_AVAILABLE;
    const { memberId, groupInstanceId, generationId } = request;
    if (generationId < 0 && this.#state === 'Empty') return ErrorCode.NONE;
    // Without member and generation it comes from outside the group, which must then have no members.
    if (generationId < 0 && memberId === '' && groupInstanceId === null) return ErrorCode.UNKNOWN_MEMBER_ID;
    const errorCode = this.#members.identify(request);
    if (errorCode !== ErrorCode.NONE) return errorCode;
    if (generationId !== this.#generation) return ErrorCode.ILLEGAL_GENERATION;
    if (this.#state === 'CompletingRebalance') return ErrorCode.REBALANCE_IN_PROGRESS;
    this.#expectLife(this.#members.get(memberId)!);
    return ErrorCode.NONE;
  }

  /** The members as DescribeGroups shows them: metadata only while a protocol is in force. */
  describe(): { protocol: string; members: readonly { member: Member; metadata: Buffer }[] } {
    const stable = this.#state === 'Stable';
    return {
      protocol: stable ? (this.#protocol ?? '') : '',
      members: this.#members.all().map(member => ({
        member,
        metadata: stable ? member.metadata(this.#protocol) : noBytes,
      })),
    };
  }

  /** Answers everything that waits, and never anything else. */
  close(): void {
    if (this.#state === 'Dead') return;
    this.#state = 'Dead';
    this.#joinTimer?.cancel();
    this.#syncTimer?.cancel();
    for (const memberId of [...this.#pending.keys()]) this.#forgetPending(memberId);
    for (const member of this.#members.all()) this.#remove(member, ErrorCode.COORDINATOR_NOT_AVAILABLE);
    this.#host.memory.add(-groupBytes - 2 * this.groupId.length);
  }

  /** Tries again to store that the group is empty, if that has failed. */
  retryStoringEmpty(): void {
    if (this.#state === 'Empty' && !this.#storedEmpty && this.#saves === 0) this.#storeEmpty();
  }

  // ---- joining

  #hasRoomFor(resident: string | undefined): boolean {
    const { groupMaxSize } = this.#host.settings;
    const member = resident === undefined ? undefined : this.#members.get(resident);
    // While a group over its size prepares, whoever rejoins first stays.
    if (this.#state === 'PreparingRebalance') return member?.join !== undefined || this.#joined < groupMaxSize;
    return this.#state === 'Empty' || member !== undefined || this.#members.size < groupMaxSize;
  }

  #turnAway(memberId: string): void {
    this.#forgetPending(memberId);
    const member = this.#members.get(memberId);
    if (member) this.#remove(member);
    this.#completeIfAllJoined();
    this.#tellIfUnused();
  }

  #supports(protocolType: string, protocols: readonly Protocol[]): boolean {
    if (protocolType === '' || protocols.length === 0) return false;
    if (this.#members.size === 0) return true;
    return protocolType === this.#protocolType && this.#members.shares(protocols);
  }

  #expectJoin(memberId: string, sessionTimeoutMs: number): void {
    this.#host.memory.add(pendingMemberBytes + 2 * memberId.length);
    const timer = this.#host.clock.after(sessionTimeoutMs, () => {
      this.#forgetPending(memberId);
      this.#completeIfAllJoined();
      this.#tellIfUnused();
    });
    this.#pending.set(memberId, timer);
  }

  #forgetPending(memberId: string): boolean {
    const timer = this.#pending.get(memberId);
    if (!timer) return false;
    timer.cancel();
    this.#pending.delete(memberId);
    this.#host.memory.add(-pendingMemberBytes - 2 * memberId.length);
    return true;
  }

  #admit(memberId: string, request: JoinRequest, client: Client): Promise<JoinAnswer> {
    if (this.#members.size === 0) this.#protocolType = request.protocolType;
    const member = this.#add(
      new Member(
        { ...request, ...client, memberId, protocols: ownProtocols(request.protocols), assignment: noBytes },
        true,
      ),
    );
    const answer = this.#awaitJoin(member);
    this.#expectLife(member, newMemberJoinTimeoutMs);
    if (this.#firstRebalance) this.#firstRebalance.grown = true;
    this.#rebalance(`member ${memberId} joins: ${told(request.reason)}`);
    return answer;
  }

  #rejoin(member: Member, request: JoinRequest, client: Client): Promise<JoinAnswer> {
    const unchanged = member.offers(request.protocols);
    // The answer may have been lost; but a leader that joins a stable group asks for a new assignment.
    if (
      unchanged &&
      (this.#state === 'CompletingRebalance' || (this.#state === 'Stable' && member.memberId !== this.#leader))
    ) {
      this.#expectLife(member);
      return Promise.resolve(this.#joinAnswer(member));
    }
    this.#update(member, request, client);
    const answer = this.#awaitJoin(member);
    this.#rebalance(
      `member ${member.memberId} joins ${unchanged ? 'again' : 'with other metadata'}: ${told(request.reason)}`,
    );
    return answer;
  }

  /** A static member is back without its member id: it takes the place of its former self (KIP-345). */
  #replaceStatic(former: Member, request: JoinRequest, client: Client, features: JoinFeatures): Promise<JoinAnswer> {
    const led = this.#leader === former.memberId;
    const formerLeader = this.#leader ?? '';
    const memberId = newMemberId(former.groupInstanceId!);
    const owedSync = this.#owingSync.has(former.memberId);
    this.#remove(former, ErrorCode.FENCED_INSTANCE_ID);
    const member = this.#add(new Member({ ...former.stored(former.assignment), memberId }, false));
    if (owedSync) this.#owingSync.add(memberId);
    if (led) this.#leader = memberId;
    this.#update(member, request, client);
    const answer = this.#awaitJoin(member);
    this.#expectLife(member);
    this.#host.logger.info(
      { group: this.groupId, instance: member.groupInstanceId, member: memberId, former: former.memberId },
      'a static member is back',
    );
    if (this.#state !== 'Stable' || this.#members.selectProtocol() !== this.#protocol) {
      this.#rebalance(`static member ${memberId} joins: ${told(request.reason)}`);
      return answer;
    }
    const generation = this.#generation;
    void this.#save(this.#snapshot()).then(saved => {
      // A rebalance that has begun in the meantime answers.
      if (this.#state !== 'Stable' || this.#generation !== generation) return;
      if (!saved) {
        // The client, refused, comes back as it came now, and is saved then.
        this.#answerJoin(member, joinRefused(ErrorCode.COORDINATOR_NOT_AVAILABLE, ''));
      } else if (features.skipsAssignment) {
        this.#answerJoin(member, { ...this.#joinAnswer(member), skipAssignment: led });
      } else {
        // Told its former id as the leader, a client without skipAssignment does not assign anew.
        this.#answerJoin(member, { ...this.#joinAnswer(member), leader: formerLeader, members: [] });
      }
    });
    return answer;
  }

  #awaitJoin(member: Member): Promise<JoinAnswer> {
    // The member has asked again, on another connection.
    this.#answerJoin(member, joinRefused(ErrorCode.REBALANCE_IN_PROGRESS, member.memberId));
    this.#joined++;
    return new Promise(resolve => {
      member.join = resolve;
    });
  }

  #answerJoin(member: Member, answer: JoinAnswer): void {
    if (!member.join) return;
    member.join(answer);
    member.join = undefined;
    this.#joined--;
  }

  #joinAnswer(member: Member): JoinAnswer {
    const leads = member.memberId === this.#leader;
    return {
      errorCode: ErrorCode.NONE,
      generationId: this.#generation,
      protocolType: this.#protocolType,
      protocolName: this.#protocol,
      leader: this.#leader ?? '',
      skipAssignment: false,
      memberId: member.memberId,
      members: leads
        ? this.#members.all().map(each => ({
            memberId: each.memberId,
            groupInstanceId: each.groupInstanceId,
            metadata: each.metadata(this.#protocol),
          }))
        : [],
    };
  }

  // ---- the rebalance

  /** Begins one; in one that has begun, completes it if this was what it waited for. */
  #rebalance(reason: string): void {
    if (this.#state === 'PreparingRebalance') this.#completeIfAllJoined();
    else this.#prepareRebalance(reason);
  }

  #prepareRebalance(reason: string): void {
    const { clock, settings, logger } = this.#host;
    logger.info({ group: this.groupId, generation: this.#generation, reason }, 'a group rebalances');
    if (this.#state === 'CompletingRebalance') this.#withdrawAssignment(ErrorCode.REBALANCE_IN_PROGRESS);
    this.#owingSync.clear();
    this.#syncTimer?.cancel();
    const first = this.#state === 'Empty';
    this.#state = 'PreparingRebalance';
    if (first) {
      const delayMs = settings.groupInitialRebalanceDelayMs;
      this.#firstRebalance = { remainingMs: Math.max(this.#members.rebalanceTimeoutMs() - delayMs, 0), grown: false };
      this.#joinTimer = clock.after(delayMs, () => this.#endFirstDelay(delayMs));
    } else if (this.#joined === this.#members.size && this.#pending.size === 0) {
      this.#completeJoining();
    } else {
      this.#joinTimer = clock.after(this.#members.rebalanceTimeoutMs(), () => this.#completeJoining());
    }
  }

  #endFirstDelay(delayMs: number): void {
    const first = this.#firstRebalance!;
    if (!first.grown || first.remainingMs === 0) {
      this.#completeJoining();
      return;
    }
    const furtherMs = Math.min(this.#host.settings.groupInitialRebalanceDelayMs, first.remainingMs);
    this.#firstRebalance = { remainingMs: Math.max(first.remainingMs - delayMs, 0), grown: false };
    this.#joinTimer = this.#host.clock.after(furtherMs, () => this.#endFirstDelay(furtherMs));
  }

  #completeIfAllJoined(): void {
    if (this.#state !== 'PreparingRebalance' || this.#firstRebalance) return;
    if (this.#joined === this.#members.size && this.#pending.size === 0) this.#completeJoining();
  }

  /** Ends PreparingRebalance: who has not rejoined is out, unless it is static. */
  #completeJoining(): void {
    this.#joinTimer?.cancel();
    this.#firstRebalance = undefined;
    for (const member of this.#members.all()) {
      if (member.join || member.groupInstanceId !== null) continue;
      this.#host.logger.info({ group: this.groupId, member: member.memberId }, 'a member has not rejoined in time');
      this.#remove(member);
    }
    if (this.#members.size > 0 && this.#joined === 0) {
      // Only static members, none of them here: their sessions or their return will end this.
      this.#joinTimer = this.#host.clock.after(this.#members.rebalanceTimeoutMs(), () => this.#completeJoining());
      return;
    }
    this.#generation++;
    if (this.#members.size === 0) {
      this.#becomeEmpty();
      return;
    }
    if (!this.#members.get(this.#leader ?? '')?.join) {
      this.#leader = this.#members.all().find(member => member.join)!.memberId;
    }
    this.#protocol = this.#members.selectProtocol();
    this.#subscribed = this.isConsumerGroup ? this.#members.subscribed(this.#protocol) : null;
    this.#state = 'CompletingRebalance';
    for (const member of this.#members.all()) {
      member.isNew = false;
      this.#owingSync.add(member.memberId);
      this.#answerJoin(member, this.#joinAnswer(member));
      this.#expectLife(member);
    }
    this.#syncTimer = this.#host.clock.after(this.#members.rebalanceTimeoutMs(), () => this.#endSyncTimeout());
  }

  #becomeEmpty(): void {
    this.#state = 'Empty';
    this.#protocol = null;
    this.#leader = null;
    this.#subscribed = this.isConsumerGroup ? new Set() : null;
    this.#host.logger.info({ group: this.groupId, generation: this.#generation }, 'a group is empty');
    this.#storeEmpty();
  }

  #storeEmpty(): void {
    this.#storedEmpty = false;
    void this.#save(this.#snapshot()).then(saved => {
      if (this.#state !== 'Empty') return;
      this.#storedEmpty = saved;
      this.#tellIfUnused();
    });
  }

  // ---- the assignment

  #checkSync(request: SyncRequest): number {
    if (this.#state === 'Dead') return ErrorCode.COORDINATOR_NOT_AVAILABLE;
    const errorCode = this.#members.identify(request);
    if (errorCode !== ErrorCode.NONE) return errorCode;
    if (request.generationId !== this.#generation) return ErrorCode.ILLEGAL_GENERATION;
    const differs = (told: string | null, own: string | null) => told !== null && own !== null && told !== own;
    return differs(request.protocolType, this.#protocolType) || differs(request.protocolName, this.#protocol)
      ? ErrorCode.INCONSISTENT_GROUP_PROTOCOL
      : ErrorCode.NONE;
  }

  #synced(member: Member): SyncAnswer {
    return {
      errorCode: ErrorCode.NONE,
      protocolType: this.#protocolType,
      protocolName: this.#protocol,
      assignment: member.assignment,
    };
  }

  #assign(assignments: SyncRequest['assignments']): void {
    const generation = this.#generation;
    if (this.#assigning === generation) return; // the leader repeats itself; its first word is being saved
    const assigned = new Map<string, Buffer>();
    let bytes = 0;
    let largest = 0;
    for (const { memberId, assignment } of assignments) {
      if (!this.#members.get(memberId)) continue;
      assigned.set(memberId, copyOf(assignment));
      bytes += assignment.length;
      largest = Math.max(largest, assignment.length);
    }
    if (largest > maxMemberBytes || !this.#host.memory.fits(bytes)) {
      this.#host.logger.warn({ group: this.groupId, bytes }, 'an assignment is too large');
      this.#failAssignment(ErrorCode.UNKNOWN_SERVER_ERROR);
      return;
    }
    this.#assigning = generation;
    void this.#save(this.#snapshot(assigned)).then(saved => {
      if (this.#assigning === generation) this.#assigning = undefined;
      if (this.#state !== 'CompletingRebalance' || this.#generation !== generation) return;
      if (saved) this.#handOut(assigned);
      else this.#failAssignment(ErrorCode.COORDINATOR_NOT_AVAILABLE);
    });
  }

  #handOut(assigned: ReadonlyMap<string, Buffer>): void {
    this.#state = 'Stable';
    this.#storedEmpty = false;
    for (const member of this.#members.all()) {
      member.assignment = assigned.get(member.memberId) ?? noBytes;
      this.#members.charge(member);
      if (member.sync) this.#answerSync(member, this.#synced(member));
    }
    this.#host.logger.info(
      { group: this.groupId, generation: this.#generation, members: this.#members.size, protocol: this.#protocol },
      'a group is stable',
    );
    this.#host.onRebalanced();
  }

  #failAssignment(errorCode: number): void {
    this.#withdrawAssignment(errorCode);
    this.#prepareRebalance('its assignment could not be saved');
  }

  #withdrawAssignment(errorCode: number): void {
    for (const member of this.#members.all()) {
      member.assignment = noBytes;
      this.#members.charge(member);
      this.#answerSync(member, syncRefused(errorCode));
    }
  }

  #answerSync(member: Member, answer: SyncAnswer): void {
    if (!member.sync) return;
    member.sync(answer);
    member.sync = undefined;
    this.#expectLife(member);
  }

  #endSyncTimeout(): void {
    const late = [...this.#owingSync].map(memberId => this.#members.get(memberId)!);
    for (const member of late) this.#remove(member);
    this.#prepareRebalance(`${late.length} members have not asked for their assignment in time`);
  }

  // ---- members

  #add(member: Member): Member {
    this.#members.add(member);
    this.#leader ??= member.memberId;
    return member;
  }

  #update(member: Member, request: JoinRequest, client: Client): void {
    member.sessionTimeoutMs = request.sessionTimeoutMs;
    member.rebalanceTimeoutMs = request.rebalanceTimeoutMs;
    member.client = client;
    this.#members.offer(member, ownProtocols(request.protocols));
  }

  /** What waits of the member is answered with `errorCode`: by default that of a member the group does not know. */
  #remove(member: Member, errorCode: number = ErrorCode.UNKNOWN_MEMBER_ID): void {
    member.session?.cancel();
    this.#answerJoin(member, joinRefused(errorCode, errorCode === ErrorCode.UNKNOWN_MEMBER_ID ? '' : member.memberId));
    member.sync?.(syncRefused(errorCode));
    member.sync = undefined;
    this.#members.remove(member);
    this.#owingSync.delete(member.memberId);
    if (this.#leader === member.memberId) this.#leader = this.#members.first()?.memberId ?? null;
  }

  #expectLife(member: Member, timeoutMs = member.sessionTimeoutMs): void {
    member.session?.cancel();
    member.session = this.#host.clock.after(timeoutMs, () => this.#expire(member));
  }

  #expire(member: Member): void {
    // Whoever waits for an answer is given a new session with it.
    if (!member.isNew && (member.join || member.sync)) return;
    this.#host.logger.info({ group: this.groupId, member: member.memberId }, 'a member has expired');
    this.#remove(member);
    this.#rebalance(`member ${member.memberId} has expired`);
    this.#tellIfUnused();
  }

  // ---- persistence

  #snapshot(assigned?: ReadonlyMap<string, Buffer>): StoredGroup {
    return {
      groupId: this.groupId,
      protocolType: this.#protocolType ?? '',
      generation: this.#generation,
      protocol: this.#protocol,
      leader: this.#leader,
      members: this.#members.stored(assigned),
    };
  }

  /** Whether it was saved; if not, the store has logged why. */
  async #save(snapshot: StoredGroup): Promise<boolean> {
    this.#saves++;
    try {
      await withDeadline(this.#host.clock, writeTimeoutMs, this.#host.save(snapshot));
      return true;
    } catch (error) {
      if (error instanceof DeadlineError) {
        this.#host.logger.warn({ group: this.groupId }, 'the database takes too long to save a group');
      } else if (!(error instanceof StorageError)) {
        throw error;
      }
      return false;
    } finally {
      this.#saves--;
    }
  }

  #tellIfUnused(): void {
    if (this.unused) this.#host.onUnused(this);
  }
}

/** A client's reason (KIP-800) for the log: no longer than the Java client sends it. */
function told(reason: string | null): string {
  return reason?.slice(0, 255) || 'no reason given';
}

function newMemberId(prefix: string): string {
  return `${prefix}-${randomUUID()}`;
}
