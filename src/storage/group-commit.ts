// Group commit: while a transaction is in flight, arriving batches queue; the next transaction takes the queue. When
// much is queued it does not wait for the one before: it is copied on another connection meanwhile, and its COMMIT is
// sent once the one before has been answered. So transactions commit in the order in which they were formed, whatever
// connection they are on: offsets are dense and global offsets rise in the order in which readers see them.
//
//        append()                    form                  COMMIT answered
//   ───▶ queued ──────────────▶ in flight (offsets) ──────────────▶ acknowledged, visible
//          │ cancelled: gone         │ refused by Postgres: offsets taken back, answered with it; those behind it
//          │                         │   are rolled back and queued again
//          ◀─────────────────────────┘ connection lost: unsettled, until log.ts has read the end back
//
// A group that is refused and holds several topics is tried again topic by topic, so that one topic's fault (dropped
// table, a trigger somebody added) is answered to its own producers only. Chained appends (a capture's) are tried again
// as one, in their order, and apart from everybody else's: what they carry may be what is refused.

import { PostgresError, type Session } from '../postgres/session.ts';
import { ErrorCode } from '../protocol/errors.ts';
import {
  type Append,
  type AppendChain,
  carriedStatements,
  encodeGroup,
  formGroup,
  type Group,
  type GroupContext,
  refused,
} from './group.ts';
import type { PartitionLog } from './partition-log.ts';
import type { Segment, Segments } from './segments.ts';
import type { TailCache } from './tail-cache.ts';
import { mayPass } from './write-lane.ts';

export interface WriterContext extends GroupContext {
  readonly segments: Segments;
  readonly tailCache: TailCache;
  loadProducers(partition: PartitionLog): Promise<void>;
  /** A connection is gone: begin a new term (suspend, settle, resume). */
  onLost(): void;
  /** The fence refused this broker. */
  onFenced(): void;
  /** A commit was refused by Postgres. */
  onFailed(error: Error, topics: readonly string[]): void;
  onCommitted(batches: number, bytes: number): void;
  /** Asynchronously committed: the high watermark follows once the WAL is flushed. */
  onUnflushed(partitions: readonly PartitionLog[]): void;
}

/** Smaller than what one connection may have in flight, so that the next group arrives while this one is written. */
const maxGroupBytes = 4 * 1024 * 1024;
/** What must be queued for a group not to wait for the one before: small ones are cheaper together. */
const overlapBytes = 1024 * 1024;
/**
 * How long a group that is copied waits for the one before, ms. That one may wait for a lock behind somebody who waits for
 * this one's, which Postgres cannot see.
 */
const patienceMs = 3000;

/** A group that is being written. */
interface Flight {
  readonly group: Group;
  readonly session: Session;
  /** Whether it has committed; false too where that is not known. */
  readonly committed: Promise<boolean>;
  outcome: Outcome | undefined;
}

type Outcome =
  | { readonly kind: 'committed' }
  | { readonly kind: 'refused'; readonly error: PostgresError }
  | { readonly kind: 'fenced' }
  /** The connection was lost after COMMIT had been sent. */
  | { readonly kind: 'unsettled' }
  /** Rolled back because of one before it, or with its connection. */
  | { readonly kind: 'withdrawn' };

export class Writer {
  readonly #context: WriterContext;
  #sessions: readonly Session[] = [];
  readonly #queue = new Queue();
  /** Appends of a group that was refused, taken apart: each part is tried alone, before what is queued. */
  #separately: Append[][] = [];
  /** In the order in which they commit. After one that does not, none does. */
  #inFlight: Flight[] = [];
  #unsettled: Group | undefined;
  #running = false;
  #sweeping = false;
  /** Told when a group may be formed that could not be before. */
  #changed: () => void = () => {};
  readonly #whenDrained: (() => void)[] = [];
  readonly #whenLanded: (() => void)[] = [];

  constructor(context: WriterContext) {
    this.#context = context;
  }

  /** Resolves when nothing is queued or in flight, or nothing can be written. */
  drained(): Promise<void> {
    if (!this.#running) return Promise.resolve();
    return new Promise(resolve => this.#whenDrained.push(resolve));
  }

  /** The partitions of the group whose COMMIT was not answered. */
  get unsettled(): readonly PartitionLog[] {
    return this.#unsettled ? [...this.#unsettled.partitions] : [];
  }

  append(append: Append): void {
    this.#queue.push(append);
    if (this.#running) this.#changed();
    else if (this.#sessions.length > 0) void this.#run();
  }

  /**
   * The producer has been answered already. Still queued, the batch is left out of the log, and its bytes are let go in
   * this turn of the event loop: with Postgres away nothing else would look at the queue.
   */
  cancel(append: Append): void {
    append.cancelled = true;
    if (this.#sweeping) return;
    this.#sweeping = true;
    setImmediate(() => {
      this.#sweeping = false;
      this.#sweep();
    });
  }

  #sweep(): void {
    for (const cancelled of this.#queue.sweep()) cancelled.resolve(refused(ErrorCode.REQUEST_TIMED_OUT));
  }

  /** Puts back what was taken; some may have been cancelled meanwhile. */
  #putBack(appends: readonly Append[]): void {
    this.#queue.unshift(appends);
    this.#sweep();
  }

  /** Begins, or goes on after a loss, on connections of the current term. */
  resume(sessions: readonly Session[]): void {
    this.#sessions = sessions;
    if (this.#running) this.#changed();
    else void this.#run();
  }

  /** The term is over: forms no more groups until `resume`. Resolves when none is in flight, once their connections are gone. */
  suspend(): Promise<void> {
    this.#sessions = [];
    if (this.#inFlight.length === 0) return Promise.resolve();
    return new Promise(resolve => this.#whenLanded.push(resolve));
  }

  /** Answers a group whose outcome was unknown, once the log's ends are known again. */
  settle(committed: boolean): void {
    const group = this.#unsettled;
    this.#unsettled = undefined;
    if (!group) return;
    if (committed) this.#commit(group);
    else this.#takeBack(group, ErrorCode.NOT_LEADER_OR_FOLLOWER);
  }

  /** Answers everything queued with `error`. */
  fail(error: number): void {
    this.#sessions = [];
    for (const append of this.#separately.flat()) append.resolve(refused(error));
    this.#separately = [];
    for (const append of this.#queue.clear()) append.resolve(refused(error));
  }

  async #run(): Promise<void> {
    this.#running = true;
    // One turn of the event loop: what was read in the same turn joins the group.
    await new Promise(setImmediate);
    while (this.#inFlight.length > 0 || (this.#sessions.length > 0 && this.#waiting)) {
      const session = this.#idleSession();
      if (session === undefined) {
        await new Promise<void>(resolve => {
          this.#changed = resolve;
        });
        continue;
      }
      const taken = this.#separately.shift() ?? this.#queue.take(maxGroupBytes);
      try {
        await this.#launch(taken, session);
      } catch (error) {
        // Only work before the COPY throws here (opening a partition or a segment): nothing was written.
        this.#context.onFailed(error as Error, topicNames(taken));
        const code = failureCode(error);
        for (const append of taken) append.resolve(refused(code));
      }
    }
    this.#running = false;
    for (const resolve of this.#whenDrained.splice(0)) resolve();
  }

  get #waiting(): boolean {
    return this.#separately.length > 0 || this.#queue.length > 0;
  }

  /** The connection for a group that may be formed now. */
  #idleSession(): Session | undefined {
    if (this.#inFlight.length === 0) return this.#waiting ? this.#sessions[0] : undefined;
    if (this.#separately.length > 0 || this.#queue.bytes < overlapBytes || this.#failing) return undefined;
    return this.#sessions.find(session => this.#inFlight.every(flight => flight.session !== session));
  }

  get #failing(): boolean {
    return this.#inFlight.some(({ outcome }) => outcome !== undefined);
  }

  async #launch(appends: readonly Append[], session: Session): Promise<void> {
    let segments = await this.#open(appends);
    // While this waited, retention may have sealed a segment.
    while (![...segments.values()].every(segment => segment === undefined || this.#context.segments.isOpen(segment))) {
      segments = await this.#open(appends);
    }
    if (!this.#sessions.includes(session) || this.#failing) {
      this.#putBack(appends); // what was opened may be cut back, or offsets taken back
      return;
    }
    const group = formGroup(appends, segments, this.#context.epoch());
    if (group.accepted.length === 0) return;
    for (const { segment } of group.topics) segment.pins++;
    const before = this.#inFlight.at(-1);
    const written = this.#write(group, session, before);
    const flight: Flight = {
      group,
      session,
      outcome: undefined,
      committed: written.then(outcome => {
        flight.outcome = outcome;
        this.#land(flight);
        return outcome.kind === 'committed';
      }),
    };
    this.#inFlight.push(flight);
  }

  /** Everything a group needs that must be waited for: producer state, and a segment for each topic. */
  async #open(appends: readonly Append[]): Promise<Map<number, Segment | undefined>> {
    const segments = new Map<number, Segment | undefined>();
    const now = Date.now();
    for (const { topic, partition } of appends) {
      if (!partition.opened) await partition.open(() => this.#context.loadProducers(partition));
      if (segments.has(topic.id)) continue;
      segments.set(
        topic.id,
        this.#context.segments.current(topic, now) ?? (await this.#context.segments.roll(topic, now)),
      );
    }
    return segments;
  }

  async #write(group: Group, session: Session, before: Flight | undefined): Promise<Outcome> {
    const { sql, copies } = encodeGroup(group, this.#context);
    const commit = `${carriedStatements(group)}COMMIT`;
    let commitSent = before === undefined;
    try {
      if (before === undefined) {
        await session.execute(`${sql}; ${commit}`, copies);
      } else {
        await session.execute(sql, copies);
        if (!(await within(patienceMs, before.committed))) {
          await session.execute('ROLLBACK');
          return { kind: 'withdrawn' };
        }
        commitSent = true;
        await session.execute(commit);
      }
      // Not after an error: then some of it may still be on its way.
      for (const copy of copies) copy.release();
      return { kind: 'committed' };
    } catch (error) {
      if (!(error instanceof PostgresError) || session.lost) {
        this.#sessions = [];
        this.#context.onLost();
        return { kind: commitSent ? 'unsettled' : 'withdrawn' };
      }
      await session.execute('ROLLBACK').catch(() => {});
      if (before && !(await before.committed)) return { kind: 'withdrawn' };
      if (error.code !== 'KF001') return { kind: 'refused', error };
      this.#sessions = [];
      this.#context.onFenced();
      return { kind: 'fenced' };
    }
  }

  #land(flight: Flight): void {
    if (flight.outcome!.kind === 'committed') {
      this.#inFlight.shift();
      this.#commit(flight.group);
    }
    if (this.#failing && this.#inFlight.every(({ outcome }) => outcome !== undefined)) this.#recover();
    if (this.#inFlight.length === 0) for (const resolve of this.#whenLanded.splice(0)) resolve();
    this.#changed();
  }

  /** Everything in flight has ended without a commit: takes the newest back first, to where the oldest began. */
  #recover(): void {
    const [oldest, ...behind] = this.#inFlight.splice(0);
    for (const { group } of behind.reverse()) {
      this.#revert(group);
      this.#putBack(group.accepted.map(({ append }) => append));
    }
    const { group, outcome } = oldest!;
    if (outcome!.kind === 'unsettled') {
      this.#unsettled = group;
    } else if (outcome!.kind === 'refused') {
      this.#refuse(group, outcome!.error);
    } else if (outcome!.kind === 'fenced') {
      this.#takeBack(group, ErrorCode.NOT_LEADER_OR_FOLLOWER);
    } else {
      this.#revert(group);
      this.#putBack(group.accepted.map(({ append }) => append));
    }
  }

  #refuse(group: Group, error: PostgresError): void {
    const parts = new Map<number | AppendChain, Append[]>();
    for (const { append } of group.accepted) {
      const key = append.chain ?? append.topic.id;
      const appends = parts.get(key);
      if (appends) appends.push(append);
      else parts.set(key, [append]);
    }
    if (parts.size > 1) {
      this.#revert(group);
      this.#separately.push(...parts.values());
    } else {
      this.#takeBack(group, failureCode(error));
      this.#context.onFailed(error, topicNames(group.accepted.map(({ append }) => append)));
    }
  }

  #commit(group: Group): void {
    this.#unpin(group);
    for (const { partition, run } of group.runs) {
      this.#context.tailCache.add(partition.tail, run);
      partition.committedEnd = run.lastOffset + 1n;
    }
    for (const partition of group.partitions) {
      partition.settle();
      if (group.synchronous) partition.highWatermark = partition.committedEnd;
    }
    for (const { append, baseOffset, logAppendTime } of group.accepted) {
      append.resolve({ error: ErrorCode.NONE, baseOffset, logAppendTime });
    }
    if (group.synchronous) for (const partition of group.partitions) partition.wake();
    else this.#context.onUnflushed([...group.partitions]);
    this.#context.onCommitted(group.accepted.length, group.bytes);
  }

  #takeBack(group: Group, error: number): void {
    this.#revert(group);
    for (const { append } of group.accepted) append.resolve(refused(error));
  }

  #revert(group: Group): void {
    this.#unpin(group);
    for (const partition of group.partitions) partition.revert();
  }

  #unpin(group: Group): void {
    for (const { segment } of group.topics) segment.pins--;
  }
}

/** False, too, when the time is up. */
async function within(ms: number, promise: Promise<boolean>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>(resolve => {
    timer = setTimeout(resolve, ms, false);
  });
  const first = await Promise.race([promise, late]);
  clearTimeout(timer);
  return first;
}

/** Appends in the order in which they came. */
class Queue {
  #appends: Append[] = [];
  bytes = 0;

  get length(): number {
    return this.#appends.length;
  }

  push(append: Append): void {
    this.#appends.push(append);
    this.bytes += append.batch.length;
  }

  /** Puts back what was taken. */
  unshift(appends: readonly Append[]): void {
    this.#appends = [...appends, ...this.#appends];
    this.bytes += sizeOf(appends);
  }

  /** Up to `maxBytes`, but one at least. */
  take(maxBytes: number): Append[] {
    let bytes = 0;
    let count = 0;
    for (const { batch } of this.#appends) {
      if (count > 0 && bytes + batch.length > maxBytes) break;
      bytes += batch.length;
      count++;
    }
    this.bytes -= bytes;
    return this.#appends.splice(0, count);
  }

  /** Takes those that have been cancelled. */
  sweep(): Append[] {
    const cancelled = this.#appends.filter(append => append.cancelled);
    this.#appends = this.#appends.filter(append => !append.cancelled);
    this.bytes -= sizeOf(cancelled);
    return cancelled;
  }

  clear(): Append[] {
    this.bytes = 0;
    return this.#appends.splice(0);
  }
}

const sizeOf = (appends: readonly Append[]): number => appends.reduce((sum, { batch }) => sum + batch.length, 0);

function topicNames(appends: readonly Append[]): string[] {
  return [...new Set(appends.map(({ topic }) => topic.name))];
}

/** The Kafka error for a transaction that Postgres refused: retriable where trying again may help. */
function failureCode(error: unknown): number {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  // Its segment was dropped with its topic; or what is written beside its batches refers to a topic that is gone.
  if (code === '42P01' || code === '23503') return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
  if (!/^[0-9A-Z]{5}$/.test(code) || mayPass(code)) return ErrorCode.KAFKA_STORAGE_ERROR;
  return ErrorCode.UNKNOWN_SERVER_ERROR;
}
