// One group of a group commit: what it holds, how its offsets are assigned, and its transaction as SQL and COPY data.
import { CopyEncoder, type CopyPayload } from '../postgres/copy.ts';
import { ErrorCode } from '../protocol/errors.ts';
import * as batchHeader from '../protocol/record-batch.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';
import type { PartitionLog } from './partition-log.ts';
import { type Segment, tableOf } from './segments.ts';
import type { Run } from './tail-cache.ts';
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
  /** The last row of a key counts, where several are in one transaction. */
  readonly key: string;
  readonly row: string;
}

/** What was given to the log, or to what stands before it. */
export interface PendingAppend {
  readonly result: Promise<AppendResult>;
  /**
   * Answers with `error` now; a batch that no commit has taken yet is left out of the log. Resolves when the batch's
   * bytes are needed no more.
   */
  expire(error: number): Promise<void>;
}

/** Appends of which none is in the log unless all that were given before it are. */
export interface AppendChain {
  broken: boolean;
}

/** What an append may ask for beside a place at the log's end. */
export interface AppendOptions {
  /** A row that commits with it; it may depend on the offset that the batch gets. */
  readonly carried?: CarriedRow | ((baseOffset: bigint) => CarriedRow);
  readonly chain?: AppendChain;
  /** A copy that keeps its source's offsets: the batch gets this one, or the log's end where that is later. */
  readonly leastOffset?: bigint;
}

/** One batch on its way into the log. */
export interface Append extends AppendOptions {
  readonly topic: Topic;
  readonly partition: PartitionLog;
  /** A whole v2 batch, validated; written to (offset, leader epoch) and kept. */
  readonly batch: Buffer;
  /** False where the producer asked for acks 0 or 1 and the settings let those commit asynchronously. */
  readonly synchronous: boolean;
  readonly appendTime: boolean;
  /** Set when the producer has been answered already (its timeout passed); still queued, it is left out. */
  cancelled: boolean;
  resolve(result: AppendResult): void;
}

export interface GroupContext {
  readonly brokerId: number;
  /** For what is built around the batches. */
  readonly memory: BufferPool;
  epoch(): number;
  /** Takes `count` global offsets. */
  takeGlobalOffsets(count: bigint): bigint;
}

/**
 * Rows longer than this are not made by joining batches; a batch that is longer by itself is its own row. With its other
 * columns a row is read into a block of 128 KiB (runtime/buffer-pool.ts).
 */
const maxRunBytes = 131_072 - 256;
const snapshotEveryBytes = 64 * 1024 * 1024;

export const refused = (error: number): AppendResult => ({ error, baseOffset: -1n, logAppendTime: -1n });

/** What is refused before the log has it. */
export function answered(result: AppendResult, chain?: AppendChain): PendingAppend {
  if (chain) chain.broken = true;
  return { result: Promise.resolve(result), expire: async () => {} };
}

interface Building {
  readonly topic: Topic;
  readonly segment: Segment;
  readonly partitions: Map<PartitionLog, { batches: Buffer[]; bytes: number }[]>;
}

export interface Group {
  readonly accepted: readonly {
    readonly append: Append;
    readonly baseOffset: bigint;
    readonly logAppendTime: bigint;
  }[];
  readonly topics: readonly Building[];
  readonly runs: readonly { readonly partition: PartitionLog; readonly run: Run }[];
  readonly partitions: ReadonlySet<PartitionLog>;
  readonly synchronous: boolean;
  readonly bytes: number;
}

/**
 * Checks sequences, assigns offsets and joins batches to runs; what cannot be appended is answered. The offsets are
 * behind those of the groups in flight, and taken back by PartitionLog.revert.
 */
export function formGroup(
  appends: readonly Append[],
  segments: ReadonlyMap<number, Segment | undefined>,
  epoch: number,
): Group {
  const now = Date.now();
  const accepted: { append: Append; baseOffset: bigint; logAppendTime: bigint }[] = [];
  const topics = new Map<number, Building>();
  const begun = new Set<PartitionLog>();
  let synchronous = false;
  let bytes = 0;
  for (const append of appends) {
    const { topic, partition, batch } = append;
    if (append.cancelled) {
      append.resolve(refused(ErrorCode.REQUEST_TIMED_OUT));
      continue;
    }
    if (append.chain?.broken) {
      append.resolve(refused(ErrorCode.KAFKA_STORAGE_ERROR));
      continue;
    }
    const segment = segments.get(topic.id);
    if (segment === undefined || partition.deleted) {
      append.resolve(refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION));
      continue;
    }
    const check = partition.producers.check(batch);
    if (check.kind !== 'append') {
      // A duplicate of a batch of this very group is answered with the group; of an older one it could be answered
      // at once, but a rare case does not deserve a second path.
      if (check.kind === 'duplicate') accepted.push({ append, baseOffset: check.baseOffset, logAppendTime: -1n });
      else append.resolve(refused(check.error));
      continue;
    }
    if (!begun.has(partition)) {
      begun.add(partition);
      partition.begin();
    }
    if (append.leastOffset !== undefined && append.leastOffset > partition.end) partition.end = append.leastOffset;
    const offset = partition.end;
    batchHeader.assignOffset(batch, 0, offset, epoch);
    if (append.appendTime) batchHeader.stampAppendTime(batch, 0, BigInt(now));
    partition.producers.append(batch, offset, now);
    partition.end = offset + BigInt(batchHeader.lastOffsetDelta(batch)) + 1n;
    accepted.push({ append, baseOffset: offset, logAppendTime: append.appendTime ? BigInt(now) : -1n });
    synchronous ||= append.synchronous;
    bytes += batch.length;

    let building = topics.get(topic.id);
    if (!building) {
      building = { topic, segment, partitions: new Map() };
      topics.set(topic.id, building);
    }
    let runs = building.partitions.get(partition);
    if (!runs) {
      runs = [];
      building.partitions.set(partition, runs);
    }
    const last = runs.at(-1);
    if (last && last.bytes + batch.length <= maxRunBytes) {
      last.batches.push(batch);
      last.bytes += batch.length;
    } else {
      runs.push({ batches: [batch], bytes: batch.length });
    }
  }
  const runs: { partition: PartitionLog; run: Run }[] = [];
  for (const { partitions } of topics.values()) {
    for (const [partition, ofPartition] of partitions) {
      for (const { batches, bytes: runBytes } of ofPartition) {
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
  return { accepted, topics: [...topics.values()], runs, partitions: begun, synchronous, bytes };
}

/**
 * What appends carry, as SQL. Two groups in flight may carry the same row, so it goes out with COMMIT only, when the group
 * before has committed: earlier, the two could wait for each other, one in Postgres and one here.
 */
export function carriedStatements(group: Group): string {
  const rows = new Map<CarriedStatement, Map<string, string>>();
  for (const { append, baseOffset } of group.accepted) {
    if (!append.carried) continue;
    const { carried } = append;
    const { statement, key, row } = typeof carried === 'function' ? carried(baseOffset) : carried;
    let ofStatement = rows.get(statement);
    if (!ofStatement) {
      ofStatement = new Map();
      rows.set(statement, ofStatement);
    }
    ofStatement.set(key, row);
  }
  return Array.from(rows, ([{ head, tail }, byKey]) => `${head} ${[...byKey.values()].join(', ')} ${tail}; `).join('');
}

/**
 * The transaction but for what it carries and its COMMIT, as one simple query and its COPY data. Only numbers are put into the text, and
 * strings of digits. No row is written by two groups in flight: one would wait for the other's commit.
 */
export function encodeGroup(group: Group, context: GroupContext): { sql: string; copies: CopyPayload[] } {
  const epoch = context.epoch();
  const statements = ['BEGIN ISOLATION LEVEL READ COMMITTED'];
  if (!group.synchronous) statements.push('SET LOCAL synchronous_commit = off');
  statements.push(`SELECT kafka.fence(${context.brokerId}, ${epoch})`);
  const copies: CopyPayload[] = [];
  let next = 0;
  for (const { topic, segment, partitions } of group.topics) {
    statements.push(
      `COPY ${tableOf(segment.id)} (base_offset, last_offset, global_offset, max_timestamp, partition_id, records) FROM STDIN (FORMAT binary)`,
    );
    const copy = new CopyEncoder(context.memory);
    for (const [partition, runs] of partitions) {
      for (const _ of runs) {
        const { run } = group.runs[next++]!;
        const count = run.lastOffset - run.baseOffset + 1n;
        const maxTimestamp = newestTimestamp(run.batches);
        copy.row(6, 36 + run.bytes);
        copy.int64(run.baseOffset);
        copy.int64(run.lastOffset);
        copy.int64(context.takeGlobalOffsets(count));
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
        partition.recordedEpoch = epoch;
      }
      if (partition.bytesSinceSnapshot >= snapshotEveryBytes && partition.inFlight === 1) {
        statements.push(snapshotStatement(partition));
        partition.bytesSinceSnapshot = 0;
      }
    }
    copies.push(copy.finish());
  }
  return { sql: statements.join('; '), copies };
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
