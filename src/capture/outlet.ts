// Where a capture's records go: partitions of this log, through group commit. With every batch commits the position of
// its last change, in the same transaction; so after any crash each partition knows what it has, and what the slot sends
// again is passed over. Batches are cut between changes only, so that a change is in its partition whole or not at all.
import { formatLsn, type Lsn, noLsn, parseLsn } from '../postgres/lsn.ts';
import type { Pool } from '../postgres/pool.ts';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import { headerBytes } from '../protocol/record-batch.ts';
import type { AppendChain, CarriedRow, CarriedStatement } from '../storage/group.ts';
import type { Log } from '../storage/log.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import type { TopicSettings } from '../storage/topic-config.ts';
import { type Topic, TopicError, type Topics } from '../storage/topics.ts';
import { BatchBuilder, type Blob } from './batch-builder.ts';
import { partitionOf } from './partitioner.ts';
import { isAfter, type Position } from './position.ts';

export interface OutletOptions {
  readonly captureId: number;
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly settingsOf: (topic: Topic) => TopicSettings;
  /** An append was refused: what has been given since is not in the log. The capture begins again from its positions. */
  readonly onFailed: (error: Error) => void;
}

interface StoredPosition extends Position {
  readonly partitionCount: number;
}

interface PartitionTarget {
  readonly target: Target;
  readonly log: PartitionLog;
  readonly builder: BatchBuilder;
  /** Of the last change in the builder. */
  commitLsn: Lsn;
  ordinal: number;
}

/** A topic as a capture writes to it. */
export interface Target {
  readonly topic: Topic;
  readonly partitions: PartitionTarget[];
  readonly maxRecordBytes: number;
  readonly batchBytes: number;
  readonly appendTime: boolean;
  /** What each partition had when the capture began. */
  readonly stored: readonly (StoredPosition | undefined)[];
  /** After this nothing can be in the log yet. */
  readonly newest: Position;
}

/** Enough to make the cost of a batch and its commit small; consumers fetch it whole. */
const preferredBatchBytes = 262_144;
/** While appends are under way, smaller batches wait for more. */
const worthAppending = 65_536;
const recordOverheadBytes = 64 + headerBytes;

const positions: CarriedStatement = {
  head: 'INSERT INTO kafka.capture_positions (capture_id, topic_id, partition_id, partition_count, commit_lsn, ordinal) VALUES',
  tail: `ON CONFLICT (capture_id, topic_id, partition_id) DO UPDATE
    SET partition_count = excluded.partition_count, commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal`,
};

export class RecordTooLarge extends Error {
  override name = 'RecordTooLarge';
}

export class Outlet {
  readonly #options: OutletOptions;
  readonly #targets = new Map<string, Target>();
  readonly #stored = new Map<number, (StoredPosition | undefined)[]>();
  /** Builders with something in them. */
  readonly #dirty = new Set<PartitionTarget>();
  readonly #marks: { endLsn: Lsn; pending: number }[] = [];
  #mark: { endLsn: Lsn; pending: number } = { endLsn: noLsn, pending: 0 };
  #durable: Lsn = noLsn;
  #inFlightBytes = 0;
  #inFlight = 0;
  readonly #awaiting: { lsn: Lsn; resolve: () => void }[] = [];
  readonly #waiting: { belowBytes: number; resolve: () => void }[] = [];
  #failed = false;
  /** A batch that failed must not be followed by a later one: its position would say that both are there. */
  readonly #chain: AppendChain = { broken: false };
  readonly #whenQuiet: (() => void)[] = [];
  records = 0;
  bytes = 0;

  constructor(options: OutletOptions) {
    this.#options = options;
  }

  /** Reads what the log has. */
  async load(): Promise<void> {
    const { pool, captureId } = this.#options;
    const { rows } = await pool.query<{
      topic_id: number;
      partition_id: number;
      partition_count: number;
      commit_lsn: string;
      ordinal: bigint;
    }>(
      `SELECT topic_id, partition_id, partition_count, commit_lsn::text, ordinal
       FROM kafka.capture_positions WHERE capture_id = $1`,
      [captureId],
    );
    for (const row of rows) {
      let ofTopic = this.#stored.get(row.topic_id);
      if (!ofTopic) {
        ofTopic = [];
        this.#stored.set(row.topic_id, ofTopic);
      }
      ofTopic[row.partition_id] = {
        commitLsn: parseLsn(row.commit_lsn),
        ordinal: Number(row.ordinal),
        partitionCount: row.partition_count,
      };
    }
  }

  /** Everything before this is in the log. */
  get durable(): Lsn {
    return this.#durable;
  }

  get failed(): boolean {
    return this.#failed;
  }

  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** Whether nothing waits to be appended, and nothing is under way. */
  get idle(): boolean {
    return this.#inFlight === 0 && this.#dirty.size === 0;
  }

  /** The topic to write to, made if there is none. Throws TopicError. */
  async target(name: string, partitionCount: number, config: Readonly<Record<string, string>> = {}): Promise<Target> {
    const { topics } = this.#options;
    const known = this.known(name);
    if (known) return known;
    let topic = topics.get(name);
    if (topic === undefined) {
      try {
        topic = await topics.create({ name, partitionCount, config });
      } catch (error) {
        // Somebody else was quicker.
        topic =
          error instanceof TopicError && error.code === ErrorCode.TOPIC_ALREADY_EXISTS ? topics.get(name) : undefined;
        if (topic === undefined) throw error;
      }
    }
    return this.#open(topic);
  }

  /** The topic if it is there and has been opened, or can be at once. */
  known(name: string): Target | undefined {
    const target = this.#targets.get(name);
    const topic = this.#options.topics.get(name);
    if (topic === undefined) return undefined;
    if (target?.topic !== topic) return this.#open(topic);
    if (target.partitions.length < topic.partitionCount) {
      this.#addPartitions(target);
    }
    return target;
  }

  #open(topic: Topic): Target {
    const settings = this.#options.settingsOf(topic);
    const stored = this.#stored.get(topic.id) ?? [];
    let newest: Position = { commitLsn: noLsn, ordinal: -1 };
    for (const position of stored) {
      if (position && isAfter(position.commitLsn, position.ordinal, newest)) newest = position;
    }
    const target: Target = {
      topic,
      partitions: [],
      maxRecordBytes: settings.maxMessageBytes,
      batchBytes: Math.min(preferredBatchBytes, settings.maxMessageBytes),
      appendTime: settings.timestampType === 'LogAppendTime',
      stored,
      newest,
    };
    this.#addPartitions(target);
    this.#targets.set(topic.name, target);
    return target;
  }

  #addPartitions(target: Target): void {
    const { topic, partitions } = target;
    for (let id = partitions.length; id < topic.partitionCount; id++) {
      partitions.push({
        target,
        log: this.#options.log.partition(topic, id)!,
        builder: new BatchBuilder(this.#options.log.memory),
        commitLsn: noLsn,
        ordinal: -1,
      });
    }
  }

  /**
   * Adds a record of the change at (commitLsn, ordinal), unless the log has it. `partition` -1: by the key. Throws
   * RecordTooLarge.
   */
  add(
    target: Target,
    partition: number,
    commitLsn: Lsn,
    ordinal: number,
    timestamp: number,
    key: Blob,
    value: Blob,
    headers: Buffer,
    headersEnd = headers.length,
  ): void {
    const bytes =
      (key.bytes === null ? 0 : key.end - key.start) +
      (value.bytes === null ? 0 : value.end - value.start) +
      headersEnd;
    if (bytes + recordOverheadBytes > target.maxRecordBytes) {
      throw new RecordTooLarge(`the record has ${bytes} bytes; max.message.bytes is ${target.maxRecordBytes}`);
    }
    if (!isAfter(commitLsn, ordinal, target.newest) && this.#isStored(target, partition, commitLsn, ordinal, key)) {
      return;
    }
    const id = partition >= 0 ? partition : partitionOf(key.bytes, key.start, key.end, target.partitions.length);
    const to = target.partitions[id]!;
    const { builder } = to;
    if (builder.count > 0 && builder.byteLength + bytes + recordOverheadBytes > target.batchBytes) {
      // Not between the records of one change.
      if (to.ordinal !== ordinal || to.commitLsn !== commitLsn) this.#append(to);
    }
    if (builder.count === 0) this.#dirty.add(to);
    builder.add(timestamp, key, value, headers, headersEnd);
    to.commitLsn = commitLsn;
    to.ordinal = ordinal;
    this.records++;
  }

  #isStored(target: Target, partition: number, commitLsn: Lsn, ordinal: number, key: Blob): boolean {
    return target.stored.some((stored, id) => {
      if (stored === undefined || isAfter(commitLsn, ordinal, stored)) return false;
      return id === (partition >= 0 ? partition : partitionOf(key.bytes, key.start, key.end, stored.partitionCount));
    });
  }

  /** What has been given so far ends a transaction at `endLsn`. */
  ended(endLsn: Lsn): void {
    this.#mark.endLsn = endLsn;
  }

  /** Appends what has been given; small batches wait while others are under way, unless `all`. */
  flush(all = false): void {
    if (this.#failed) return;
    if (!all && this.#inFlight > 0) {
      for (const to of this.#dirty) if (to.builder.byteLength >= worthAppending) this.#append(to);
      if (this.#dirty.size > 0) return;
    }
    for (const to of this.#dirty) this.#append(to);
    this.#closeMark();
  }

  /** Resolves once fewer than `belowBytes` are under way; at once, when the capture has failed. */
  async room(belowBytes: number): Promise<void> {
    if (this.#inFlightBytes < belowBytes || this.#failed) return;
    await new Promise<void>(resolve => this.#waiting.push({ belowBytes, resolve }));
  }

  /** Resolves when everything before `lsn` is in the log; at once, when the capture has failed. */
  async reached(lsn: Lsn): Promise<void> {
    if (this.#durable >= lsn || this.#failed) return;
    await new Promise<void>(resolve => this.#awaiting.push({ lsn, resolve }));
  }

  /** Resolves when everything given is in the log, or the capture has failed. */
  async settled(): Promise<void> {
    this.flush(true);
    await this.room(1);
  }

  /** Appends no more. */
  abandon(): void {
    this.#failed = true;
    this.#chain.broken = true;
    this.#dirty.clear();
    this.#wake();
  }

  /** Resolves when nothing is under way, however it ended: only then do stored positions tell what the log has. */
  async quiet(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>(resolve => this.#whenQuiet.push(resolve));
  }

  #append(to: PartitionTarget): void {
    this.#dirty.delete(to);
    const { log, captureId } = this.#options;
    const { topic, appendTime, partitions } = to.target;
    const batch = to.builder.finish();
    const { partition } = to.log;
    const row: CarriedRow = {
      statement: positions,
      key: `${captureId}.${topic.id}.${partition}`,
      row: `(${captureId}, ${topic.id}, ${partition}, ${partitions.length}, '${formatLsn(to.commitLsn)}', ${to.ordinal})`,
    };
    const mark = this.#mark;
    mark.pending++;
    const bytes = batch.length;
    this.#inFlightBytes += bytes;
    this.#inFlight++;
    this.bytes += bytes;
    void log.append(topic, to.log, batch, -1, appendTime, row, this.#chain).result.then(({ error }) => {
      this.#inFlightBytes -= bytes;
      this.#inFlight--;
      if (error === ErrorCode.NONE) {
        log.memory.give(batch);
        mark.pending--;
        this.#advance();
        if (!this.#failed && this.#dirty.size > 0 && this.#inFlight === 0) this.flush();
      } else if (!this.#failed) {
        this.abandon();
        this.#options.onFailed(new Error(`topic ${topic.name} did not take a batch (${errorOf(error).name})`));
      }
      this.#wake();
      if (this.#inFlight === 0) for (const resolve of this.#whenQuiet.splice(0)) resolve();
    });
  }

  /** Everything up to the mark's end has been handed to the log. */
  #closeMark(): void {
    this.#marks.push(this.#mark);
    this.#mark = { endLsn: this.#mark.endLsn, pending: 0 };
    this.#advance();
  }

  #advance(): void {
    while (this.#marks.length > 0 && this.#marks[0]!.pending === 0) {
      const { endLsn } = this.#marks.shift()!;
      if (endLsn > this.#durable) this.#durable = endLsn;
    }
    this.#tell();
  }

  #tell(): void {
    for (let i = 0; i < this.#awaiting.length; ) {
      if (this.#durable >= this.#awaiting[i]!.lsn || this.#failed) this.#awaiting.splice(i, 1)[0]!.resolve();
      else i++;
    }
  }

  #wake(): void {
    this.#tell();
    for (let i = 0; i < this.#waiting.length; ) {
      const { belowBytes, resolve } = this.#waiting[i]!;
      if (this.#inFlightBytes < belowBytes || this.#failed) {
        this.#waiting.splice(i, 1);
        resolve();
      } else {
        i++;
      }
    }
  }
}
