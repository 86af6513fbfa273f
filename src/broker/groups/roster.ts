// The members of one group by id and by instance id, what they offer together, and what they cost in memory.
import { ErrorCode } from '../../protocol/errors.ts';
import type { StoredMember } from '../../storage/groups.ts';
import type { MemoryBudget } from './limits.ts';
import type { Member } from './member.ts';
import { noBytes, type Protocol } from './requests.ts';
import { subscribedTopics } from './subscription.ts';

export interface MemberIdentity {
  readonly memberId: string;
  readonly groupInstanceId: string | null;
}

export class Roster {
  readonly #memory: MemoryBudget;
  readonly #members = new Map<string, Member>();
  /** Member id by group instance id (KIP-345). */
  readonly #instances = new Map<string, string>();
  /** How many members offer a protocol. */
  readonly #supporters = new Map<string, number>();

  constructor(memory: MemoryBudget) {
    this.#memory = memory;
  }

  get size(): number {
    return this.#members.size;
  }

  get(memberId: string): Member | undefined {
    return this.#members.get(memberId);
  }

  idOfInstance(groupInstanceId: string): string | undefined {
    return this.#instances.get(groupInstanceId);
  }

  first(): Member | undefined {
    return this.#members.values().next().value;
  }

  /** A copy, so that members may be removed on the way. */
  all(): Member[] {
    return [...this.#members.values()];
  }

  /** An error code when that is no member, or a static member's former self. */
  identify({ memberId, groupInstanceId }: MemberIdentity): number {
    if (groupInstanceId !== null) {
      const current = this.#instances.get(groupInstanceId);
      if (current === undefined) return ErrorCode.UNKNOWN_MEMBER_ID;
      if (current !== memberId) return ErrorCode.FENCED_INSTANCE_ID;
    }
    return this.#members.has(memberId) ? ErrorCode.NONE : ErrorCode.UNKNOWN_MEMBER_ID;
  }

  add(member: Member): void {
    this.#members.set(member.memberId, member);
    if (member.groupInstanceId !== null) this.#instances.set(member.groupInstanceId, member.memberId);
    this.#countSupport(member.protocols, 1);
    this.charge(member);
  }

  remove(member: Member): void {
    this.#members.delete(member.memberId);
    if (member.groupInstanceId !== null) this.#instances.delete(member.groupInstanceId);
    this.#countSupport(member.protocols, -1);
    this.#memory.add(-member.charged);
  }

  offer(member: Member, protocols: readonly Protocol[]): void {
    this.#countSupport(member.protocols, -1);
    member.protocols = protocols;
    this.#countSupport(protocols, 1);
    this.charge(member);
  }

  /** Adjusts the budget to what the member holds now. */
  charge(member: Member): void {
    const { bytes } = member;
    this.#memory.add(bytes - member.charged);
    member.charged = bytes;
  }

  /** Whether all members offer one of `protocols`. */
  shares(protocols: readonly Protocol[]): boolean {
    return protocols.some(({ name }) => this.#isShared(name));
  }

  /** Of the protocols that all members offer, the one that most prefer. */
  selectProtocol(): string | null {
    const votes = new Map<string, number>();
    for (const { protocols } of this.#members.values()) {
      const choice = protocols.find(({ name }) => this.#isShared(name));
      if (choice) votes.set(choice.name, (votes.get(choice.name) ?? 0) + 1);
    }
    let selected: string | null = null;
    for (const [name, count] of votes) if (selected === null || count > votes.get(selected)!) selected = name;
    return selected;
  }

  /** The members' longest. */
  rebalanceTimeoutMs(): number {
    let longest = 0;
    for (const { rebalanceTimeoutMs } of this.#members.values()) longest = Math.max(longest, rebalanceTimeoutMs);
    return longest;
  }

  /** The topics that the members, consumers, subscribe to; null when one's metadata does not say. */
  subscribed(protocol: string | null): ReadonlySet<string> | null {
    const all = new Set<string>();
    for (const member of this.#members.values()) {
      const topics = subscribedTopics(member.metadata(protocol));
      if (topics === null) return null;
      for (const topic of topics) all.add(topic);
    }
    return all;
  }

  /** With the assignments of `assigned` in place of their own, if it is given. */
  stored(assigned?: ReadonlyMap<string, Buffer>): StoredMember[] {
    return this.all().map(member =>
      member.stored(assigned ? (assigned.get(member.memberId) ?? noBytes) : member.assignment),
    );
  }

  #isShared(protocol: string): boolean {
    return this.#supporters.get(protocol) === this.#members.size;
  }

  #countSupport(protocols: readonly Protocol[], by: 1 | -1): void {
    for (const { name } of protocols) {
      const count = (this.#supporters.get(name) ?? 0) + by;
      if (count === 0) this.#supporters.delete(name);
      else this.#supporters.set(name, count);
    }
  }
}
