// Group commit: while a transaction is in flight, arriving batches queue; the next transaction takes the queue.
// One writer, one connection, at most one transaction in flight; a partition always has the same writer, so
// its offsets are assigned when a group is formed and are dense whatever becomes of the group.
//
//        append()                    form                  COMMIT answered
//   ───▶ queued ──────────────▶ in flight (offsets) ──────────────▶ acknowledged, visible
//          │ cancelled: gone         │ error: offsets taken back, answered with it
//          ▼                         │ connection lost: unsettled, until log.ts has read the end back
//
// A group that fails and holds several topics is tried again topic by topic, so that one topic's fault (dropped
// table, a trigger somebody added) is answered to its own producers only.

import { CopyEncoder, type CopyPayload } from '../postgres/copy.ts';
import { PostgresError, type Session } from '../postgres/session.ts';
import { ErrorCode } from '../protocol/errors.ts';
import * as batchHeader from '../protocol/record-batch.ts';
import type { PartitionLog } from './partition-log.ts';
import { type Segment, type Segments, tableOf } from './segments.ts';
import type { Run, TailCache } from './tail-cache.ts';
import type { Topic } from './topics.ts';

export interface AppendResult {
  readonly error: number;
  readonly baseOffset: bigint;
  /** ms since the Unix epoch where the topic uses LogAppendTime, else -1. */
  readonly logAppendTime: bigint;
}

/** An INSERT of `CarriedRow`s: what is before its rows, and what is after them. */
export interface CarriedStatement {
  readonly head: string;
  readonly tail: string;
}

/**
 * A row that commits with a batch or not at all: how far a capture has come. Only of tables that Millrace alone writes
 * and nobody else locks, and made of numbers and LSNs: it becomes SQL as it stands.
 */
export interface CarriedRow {
  readonly statement: CarriedStatement;
  /** The last row of a key counts, where several are in one transaction. All of one key go with one partition. */
  readonly key: string;
  readonly row: string;
}

/** Appends of which none is in the log after one that failed. */
export interface AppendChain {
  broken: boolean;
}

/** One batch on its way into the log. */
export interface Append {
  readonly topic: Topic;
  readonly partition: PartitionLog;
  /** A whole v2 batch, validated; written to (offset, leader epoch) and kept. */
  readonly batch: Buffer;
  /** False where the producer asked for acks 0 or 1 and the settings let those commit asynchronously. */
  readonly synchronous: boolean;
  readonly appendTime: boolean;
  readonly carried?: readonly CarriedRow[];
  readonly chain?: AppendChain | undefined;
  /** Set when the producer has been answered already (its timeout passed); still queued, it is left out. */
  cancelled: boolean;
  resolve(result: AppendResult): void;
}

export interface WriterContext {
  readonly segments: Segments;
  readonly tailCache: TailCache;
  readonly brokerId: number;
  epoch(): number;
  /** Takes `count` global offsets. */
  takeGlobalOffsets(count: bigint): bigint;
  loadProducers(partition: PartitionLog): Promise<void>;
  /** The writer's connection is gone with a group unsettled: begin a new term, then call `settle` and `resume`. */
  onLost(): void;
  /** The fence refused this broker. */
  onFenced(): void;
  /** A commit was refused by Postgres. */
  onFailed(error: Error, topics: readonly string[]): void;
  onCommitted(batches: number, bytes: number): void;
  /** Asynchronously committed: the high watermark follows once the WAL is flushed. */
  onUnflushed(partitions: readonly PartitionLog[]): void;
}

/** Rows longer than this are not made by joining batches; a batch that is longer by itself is its own row. */
const maxRunBytes = 131_072;
const maxGroupBytes = 8 * 1024 * 1024;
const snapshotEveryBytes = 64 * 1024 * 1024;

interface Building {
  readonly topic: Topic;
  readonly segment: Segment;
  readonly partitions: Map<PartitionLog, { readonly runs: { batches: Buffer[]; bytes: number }[] }>;
}

interface Group {
  readonly accepted: { readonly append: Append; readonly baseOffset: bigint; readonly logAppendTime: bigint }[];
  readonly topics: Building[];
  readonly runs: { readonly partition: PartitionLog; readonly run: Run }[];
  readonly synchronous: boolean;
  readonly bytes: number;
}

export class Writer {
  readonly #context: WriterContext;
  #session: Session | undefined;
  #queue: Append[] = [];
  #running = false;
  #unsettled: Group | undefined;
  readonly #whenDrained: (() => void)[] = [];

  constructor(context: WriterContext) {
    this.#context = context;
  }

  /** Resolves when nothing is queued or in flight. */
  drained(): Promise<void> {
    if (!this.#running) return Promise.resolve();
    return new Promise(resolve => this.#whenDrained.push(resolve));
  }

  /** The partitions of the group whose COMMIT was not answered. */
  get unsettled(): readonly PartitionLog[] {
    return this.#unsettled ? [...new Set(this.#unsettled.runs.map(({ partition }) => partition))] : [];
  }

  append(append: Append): void {
    this.#queue.push(append);
    if (!this.#running && this.#session) void this.#run();
  }

  /** Begins, or goes on after a loss, on a connection of the current term. */
  resume(session: Session): void {
    this.#session = session;
    if (!this.#running) void this.#run();
  }

  /** The term is over: forms no more groups until `resume`, so that `settle` leaves none behind. */
  suspend(): void {
    this.#session = undefined;
  }

  /** Answers a group whose outcome was unknown, once the log's ends are known again. */
  settle(committed: boolean): void {
    const group = this.#unsettled;
    this.#unsettled = undefined;
    if (!group) return;
    if (committed) {
      this.#commit(group);
    } else {
      this.#unpin(group);
      this.#takeBack(group, ErrorCode.NOT_LEADER_OR_FOLLOWER);
    }
  }

  /** Answers everything queued with `error`. */
  fail(error: number): void {
    this.#session = undefined;
    for (const append of this.#queue.splice(0)) append.resolve({ error, baseOffset: -1n, logAppendTime: -1n });
  }

  async #run(): Promise<void> {
    this.#running = true;
    // One turn of the event loop: what was read in the same turn joins the group.
    await new Promise(setImmediate);
    while (this.#session && this.#queue.length > 0) {
      const taken = this.#take();
      try {
        await this.#process(taken);
      } catch (error) {
        // Only work before the COPY throws here (opening a partition or a segment): nothing was written.
        this.#context.onFailed(error as Error, topicNames(taken));
        const code = failureCode(error);
        for (const append of taken) append.resolve({ error: code, baseOffset: -1n, logAppendTime: -1n });
      }
    }
    this.#running = false;
    for (const resolve of this.#whenDrained.splice(0)) resolve();
  }

  #take(): Append[] {
    let bytes = 0;
    let count = 0;
    while (count < this.#queue.length && (count === 0 || bytes + this.#queue[count]!.batch.length <= maxGroupBytes)) {
      bytes += this.#queue[count++]!.batch.length;
    }
    return count === this.#queue.length ? this.#queue.splice(0) : this.#queue.splice(0, count);
  }

  async #process(appends: readonly Append[]): Promise<void> {
    const failed = await this.#try(appends);
    if (!failed) return;
    const byTopic = new Map<number, Append[]>();
    for (const { append } of failed.group.accepted) {
      const appends = byTopic.get(append.topic.id);
      if (appends) appends.push(append);
      else byTopic.set(append.topic.id, [append]);
    }
    if (byTopic.size === 1) {
      this.#takeBack(failed.group, failureCode(failed.error));
      this.#context.onFailed(failed.error, topicNames(appends));
      return;
    }
    this.#revert(failed.group);
    for (const ofTopic of byTopic.values()) await this.#process(ofTopic);
  }

  /** Returns what to answer for, if Postgres refused the transaction. */
  async #try(appends: readonly Append[]): Promise<{ error: Error; group: Group } | undefined> {
    const session = this.#session;
    let current = await this.#open(appends);
    // While this waited, another writer may have rolled a segment, and retention sealed it.
    while (![...current.values()].every(segment => segment === undefined || this.#context.segments.isOpen(segment))) {
      current = await this.#open(appends);
    }
    if (!session || session !== this.#session) {
      this.#queue.unshift(...appends); // the term ended while it waited: what was opened may be cut back
      return undefined;
    }
    const group = this.#form(appends, current);
    if (group.accepted.length === 0) return undefined;
    const { sql, copies } = this.#encode(group);
    for (const { segment } of group.topics) segment.pins++;
    try {
      await session.execute(sql, copies);
    } catch (error) {
      if (!(error instanceof PostgresError) || session.lost) {
        this.#unsettled = group;
        this.#session = undefined;
        this.#context.onLost();
        return undefined;
      }
      await session.execute('ROLLBACK').catch(() => {});
      if (error.code === 'KF001') {
        this.#unpin(group);
        this.#takeBack(group, ErrorCode.NOT_LEADER_OR_FOLLOWER);
        this.#session = undefined;
        this.#context.onFenced();
        return undefined;
      }
      this.#unpin(group);
      return { error, group };
    }
    this.#commit(group);
    return undefined;
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

  /** Checks sequences, assigns offsets and joins batches to runs. Takes no time off the event loop's turn. */
  #form(appends: readonly Append[], segments: Map<number, Segment | undefined>): Group {
    const epoch = this.#context.epoch();
    const now = Date.now();
    const accepted: Group['accepted'] = [];
    const topics = new Map<number, Building>();
    let synchronous = false;
    let bytes = 0;
    for (const append of appends) {
      const { topic, partition, batch } = append;
      if (append.cancelled) {
        append.resolve({ error: ErrorCode.REQUEST_TIMED_OUT, baseOffset: -1n, logAppendTime: -1n });
        continue;
      }
      if (append.chain?.broken) {
        append.resolve({ error: ErrorCode.KAFKA_STORAGE_ERROR, baseOffset: -1n, logAppendTime: -1n });
        continue;
      }
      const segment = segments.get(topic.id);
      if (segment === undefined || partition.deleted) {
        append.resolve({ error: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, baseOffset: -1n, logAppendTime: -1n });
        continue;
      }
      const check = partition.producers.check(batch);
      if (check.kind !== 'append') {
        // A duplicate of a batch of this very group is answered with the group; of an older one it could be answered
        // at once, but a rare case does not deserve a second path.
        if (check.kind === 'duplicate') {
          accepted.push({ append, baseOffset: check.baseOffset, logAppendTime: -1n });
        } else {
          append.resolve({ error: check.error, baseOffset: -1n, logAppendTime: -1n });
        }
        continue;
      }
      const offset = partition.end;
      batchHeader.assignOffset(batch, 0, offset, epoch);
      if (append.appendTime) batchHeader.stampAppendTime(batch, 0, BigInt(now));
      partition.producers.begin(batch, offset, now);
      partition.end = offset + BigInt(batchHeader.lastOffsetDelta(batch)) + 1n;
      accepted.push({ append, baseOffset: offset, logAppendTime: append.appendTime ? BigInt(now) : -1n });
      synchronous ||= append.synchronous;
      bytes += batch.length;

      let building = topics.get(topic.id);
      if (!building) {
        building = { topic, segment, partitions: new Map() };
        topics.set(topic.id, building);
      }
      let rows = building.partitions.get(partition);
      if (!rows) {
        rows = { runs: [] };
        building.partitions.set(partition, rows);
      }
      const last = rows.runs.at(-1);
      if (last && last.bytes + batch.length <= maxRunBytes) {
        last.batches.push(batch);
        last.bytes += batch.length;
      } else {
        rows.runs.push({ batches: [batch], bytes: batch.length });
      }
    }
    const runs: Group['runs'] = [];
    for (const { partitions } of topics.values()) {
      for (const [partition, rows] of partitions) {
        for (const { batches, bytes: runBytes } of rows.runs) {
          const run = {
            baseOffset: batchHeader.baseOffset(batches[0]!),
            lastOffset: batchHeader.lastOffset(batches.at(-1)!),
            batches,
            bytes: runBytes,
          };
          runs.push({ partition, run });
        }
      }
    }
    return { accepted, topics: [...topics.values()], runs, synchronous, bytes };
  }

  /** The whole transaction as one simple query and its COPY data. Only numbers are put into the text. */
  #encode(group: Group): { sql: string; copies: CopyPayload[] } {
    const epoch = this.#context.epoch();
    const statements = ['BEGIN ISOLATION LEVEL READ COMMITTED'];
    if (!group.synchronous) statements.push('SET LOCAL synchronous_commit = off');
    statements.push(`SELECT kafka.fence(${this.#context.brokerId}, ${epoch})`);
    const copies: CopyPayload[] = [];
    let next = 0;
    for (const { topic, segment, partitions } of group.topics) {
      statements.push(
        `COPY ${tableOf(segment.id)} (base_offset, last_offset, global_offset, max_timestamp, partition_id, records) FROM STDIN (FORMAT binary)`,
      );
      const copy = new CopyEncoder();
      for (const [partition, { runs }] of partitions) {
        for (const _ of runs) {
          const { run } = group.runs[next++]!;
          const count = run.lastOffset - run.baseOffset + 1n;
          const maxTimestamp = newestTimestamp(run.batches);
          copy.row(6, 36 + run.bytes);
          copy.int64(run.baseOffset);
          copy.int64(run.lastOffset);
          copy.int64(this.#context.takeGlobalOffsets(count));
          copy.int64(maxTimestamp);
          copy.int32(partition.partition);
          copy.bytes(run.batches, run.bytes);
          segment.bytes += run.bytes;
          if (maxTimestamp > segment.maxTimestamp) segment.maxTimestamp = maxTimestamp;
          partition.bytesSinceSnapshot += run.bytes;
        }
        if (partition.recordedEpoch !== epoch) {
          statements.push(
            `INSERT INTO kafka.leader_epochs VALUES (${topic.id}, ${partition.partition}, ${epoch}, ${partition.committedEnd}) ON CONFLICT DO NOTHING`,
          );
        }
        if (partition.bytesSinceSnapshot >= snapshotEveryBytes) statements.push(snapshotStatement(partition));
      }
      copies.push(copy.finish());
    }
    statements.push(...carriedStatements(group), 'COMMIT');
    return { sql: statements.join('; '), copies };
  }

  #commit(group: Group): void {
    this.#unpin(group);
    const epoch = this.#context.epoch();
    const moved = new Set<PartitionLog>();
    for (const { partition, run } of group.runs) {
      this.#context.tailCache.add(partition.tail, run);
      partition.committedEnd = run.lastOffset + 1n;
      moved.add(partition);
    }
    for (const partition of moved) {
      partition.recordedEpoch = epoch;
      partition.producers.settle();
      if (partition.bytesSinceSnapshot >= snapshotEveryBytes) partition.bytesSinceSnapshot = 0;
      if (group.synchronous) partition.highWatermark = partition.committedEnd;
    }
    for (const { append, baseOffset, logAppendTime } of group.accepted) {
      append.resolve({ error: ErrorCode.NONE, baseOffset, logAppendTime });
    }
    if (group.synchronous) for (const partition of moved) partition.wake();
    else this.#context.onUnflushed([...moved]);
    this.#context.onCommitted(group.accepted.length, group.bytes);
  }

  #takeBack(group: Group, error: number): void {
    this.#revert(group);
    for (const { append } of group.accepted) append.resolve({ error, baseOffset: -1n, logAppendTime: -1n });
  }

  #revert(group: Group): void {
    for (const { partition } of group.runs) {
      partition.producers.revert();
      partition.end = partition.committedEnd;
    }
  }

  #unpin(group: Group): void {
    for (const { segment } of group.topics) segment.pins--;
  }
}

function carriedStatements(group: Group): string[] {
  const rows = new Map<CarriedStatement, Map<string, string>>();
  for (const { append } of group.accepted) {
    for (const { statement, key, row } of append.carried ?? []) {
      let ofStatement = rows.get(statement);
      if (!ofStatement) {
        ofStatement = new Map();
        rows.set(statement, ofStatement);
      }
      ofStatement.set(key, row);
    }
  }
  return Array.from(rows, ([{ head, tail }, byKey]) => `${head} ${[...byKey.values()].join(', ')} ${tail}`);
}

export function snapshotStatement(partition: PartitionLog): string {
  // Numbers and strings of digits only, so the JSON needs no quoting in SQL.
  const producers = JSON.stringify(partition.producers.snapshot());
  return `INSERT INTO kafka.producer_snapshots VALUES (${partition.topicId}, ${partition.partition}, ${partition.end}, '${producers}')
    ON CONFLICT (topic_id, partition_id) DO UPDATE SET next_offset = excluded.next_offset, producers = excluded.producers`;
}

function newestTimestamp(batches: readonly Buffer[]): bigint {
  let newest = batchHeader.maxTimestamp(batches[0]!);
  for (let i = 1; i < batches.length; i++) {
    const timestamp = batchHeader.maxTimestamp(batches[i]!);
    if (timestamp > newest) newest = timestamp;
  }
  return newest;
}

function topicNames(appends: readonly Append[]): string[] {
  return [...new Set(appends.map(({ topic }) => topic.name))];
}

/** The Kafka error for a transaction that Postgres refused: retriable where trying again may help. */
function failureCode(error: unknown): number {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === '42P01') return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION; // its segment was dropped with its topic
  // Transaction rollback, insufficient resources, object state, operator intervention, system error; or no SQLSTATE:
  // the connection.
  if (!/^[0-9A-Z]{5}$/.test(code) || /^(08|25|40|53|55|57|58)/.test(code)) return ErrorCode.KAFKA_STORAGE_ERROR;
  return ErrorCode.UNKNOWN_SERVER_ERROR;
}
