// What bounds the groups: the operator's settings, constants that Kafka has too, and one budget of memory for all
// groups, because a client that has not proven anything may name as many groups and members as it likes.
import type { Settings } from '../../runtime/settings.ts';

export type GroupSettings = Pick<
  Settings,
  | 'groupInitialRebalanceDelayMs'
  | 'groupMinSessionTimeoutMs'
  | 'groupMaxSessionTimeoutMs'
  | 'groupMaxSize'
  | 'offsetsRetentionMinutes'
  | 'offsetMetadataMaxBytes'
  | 'groupMemoryBytes'
>;

/** How long a JoinGroup of a new member waits: it cannot send heartbeats before it is answered. */
export const newMemberJoinTimeoutMs = 5 * 60_000;
/** How long a write may take before clients are told to try again. */
export const writeTimeoutMs = 5_000;
/** How often old offsets and unused groups are looked for. */
export const sweepIntervalMs = 10 * 60_000;
/** Names and metadata, or the assignment, of one member: the largest record a Kafka broker would store for it. */
export const maxMemberBytes = 1024 * 1024;
/** Of a group id, which together with a topic id and a partition must fit an index entry of Postgres (2,704 bytes). */
export const maxNameBytes = 1024;

/** Estimates of what the objects take beside the bytes they hold. */
export const groupBytes = 2048;
export const memberBytes = 1024;
export const pendingMemberBytes = 512;

export class MemoryBudget {
  readonly limit: number;
  #used = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  get used(): number {
    return this.#used;
  }

  fits(bytes: number): boolean {
    return this.#used + bytes <= this.limit;
  }

  /** Negative when something has gone. */
  add(bytes: number): void {
    this.#used += bytes;
  }
}
