// A capture's records on their way to its destination: batches by partition, each with the position of its last change.
// What is there already is passed over. Batches are cut between changes only, so that a change is in its partition whole
// or not at all.
import { type Lsn, noLsn } from '../postgres/lsn.ts';
import { errorOf } from '../protocol/errors.ts';
import { headerBytes } from '../protocol/record-batch.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';
import { TopicError } from '../storage/topics.ts';
import { BatchBuilder, type Blob } from './batch-builder.ts';
import type { Destination, Place, StoredPosition } from './destination.ts';
import { partitionOf } from './partitioner.ts';
import { isAfter, type Position } from './position.ts';

export interface OutletOptions {
  readonly destination: Destination;
  /** For batches. */
  readonly memory: BufferPool;
  /** A batch was refused: what has been given since is not there. The capture begins again from its positions. */
  readonly onFailed: (error: Error) => void;
}

interface PartitionTarget {
  readonly target: Target;
  readonly partition: number;
  readonly builder: BatchBuilder;
  /** Of the last change in the builder. */
  commitLsn: Lsn;
  ordinal: number;
}

/** A topic as a capture writes to it. */
export interface Target {
  readonly name: string;
  readonly place: Place;
  readonly partitions: PartitionTarget[];
  readonly maxRecordBytes: number;
  readonly batchBytes: number;
  /** What each partition had when the capture began. */
  readonly stored: readonly (StoredPosition | undefined)[];
  /** After this nothing can be there yet. */
  readonly newest: Position;
}

/** Enough to make the cost of a batch and its commit small; consumers fetch it whole. */
const preferredBatchBytes = 262_144;
/** While appends are under way, smaller batches wait for more. */
const worthAppending = 65_536;
const recordOverheadBytes = 64 + headerBytes;

export class RecordTooLarge extends Error {
  override name = 'RecordTooLarge';
}

export class Outlet {
  readonly #options: OutletOptions;
  readonly #targets = new Map<string, Target>();
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
  readonly #whenQuiet: (() => void)[] = [];
  records = 0;
  bytes = 0;

  constructor(options: OutletOptions) {
    this.#options = options;
  }

  /** Reads what is there. */
  load(): Promise<void> {
    return this.#options.destination.load();
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

  /** The topic to write to, made if there is none. Rejects with TopicError where there can be none, else with what may pass. */
  async target(name: string, partitionCount: number, config: Readonly<Record<string, string>> = {}): Promise<Target> {
    const known = this.known(name);
    if (known) return known;
    const { destination } = this.#options;
    const place = await destination.open(name, partitionCount, config).catch((error: unknown) => {
      if (!(error instanceof TopicError) || !errorOf(error.code).retriable) throw error;
      throw new Error(`topic ${name} cannot be made: ${error.message}`, { cause: error });
    });
    return this.#open(place);
  }

  /** The topic to write to, if there is one. */
  async find(name: string): Promise<Target | undefined> {
    const place = await this.#options.destination.find(name);
    return place && this.#open(place);
  }

  /** The topic if it can be written to at once. */
  known(name: string): Target | undefined {
    const place = this.#options.destination.known(name);
    return place && this.#open(place);
  }

  #open(place: Place): Target {
    const known = this.#targets.get(place.name);
    if (known?.place === place) {
      if (known.partitions.length < place.partitionCount) this.#addPartitions(known);
      return known;
    }
    const { name, maxRecordBytes, stored } = place;
    let newest: Position = { commitLsn: noLsn, ordinal: -1 };
    for (const position of stored) {
      if (position && isAfter(position.commitLsn, position.ordinal, newest)) newest = position;
    }
    const target: Target = {
      name,
      place,
      partitions: [],
      maxRecordBytes,
      batchBytes: Math.min(preferredBatchBytes, maxRecordBytes),
      stored,
      newest,
    };
    this.#addPartitions(target);
    this.#targets.set(name, target);
    return target;
  }

  #addPartitions(target: Target): void {
    const { place, partitions } = target;
    const { memory } = this.#options;
    for (let partition = partitions.length; partition < place.partitionCount; partition++) {
      partitions.push({ target, partition, builder: new BatchBuilder(memory), commitLsn: noLsn, ordinal: -1 });
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

  /** Resolves when everything given is in the log, the capture has failed, or a destination far away takes too long. */
  async settled(): Promise<void> {
    this.flush(true);
    const { settleMs } = this.#options.destination;
    if (settleMs === undefined) return this.room(1);
    const timer = setTimeout(() => this.abandon(), settleMs);
    await this.room(1);
    clearTimeout(timer);
  }

  /** Appends no more. */
  abandon(): void {
    this.#failed = true;
    this.#options.destination.abandon();
    this.#dirty.clear();
    this.#wake();
  }

  /** Resolves when nothing is under way, however it ended: only then do stored positions tell what the log has. */
  async quiet(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>(resolve => this.#whenQuiet.push(resolve));
  }

  #append(to: PartitionTarget): void {
    this.#dirty.delete(to);
    const { destination, memory } = this.#options;
    const batch = to.builder.finish();
    const mark = this.#mark;
    mark.pending++;
    const bytes = batch.length;
    this.#inFlightBytes += bytes;
    this.#inFlight++;
    this.bytes += bytes;
    const ended = (error?: Error) => {
      this.#inFlightBytes -= bytes;
      this.#inFlight--;
      if (error === undefined) {
        memory.give(batch);
        mark.pending--;
        this.#advance();
        if (!this.#failed && this.#dirty.size > 0 && this.#inFlight === 0) this.flush();
      } else if (!this.#failed) {
        this.abandon();
        this.#options.onFailed(error);
      }
      this.#wake();
      if (this.#inFlight === 0) for (const resolve of this.#whenQuiet.splice(0)) resolve();
    };
    const { place, partitions } = to.target;
    const last = { commitLsn: to.commitLsn, ordinal: to.ordinal, partitionCount: partitions.length };
    destination.append(place, to.partition, batch, last).then(() => ended(), ended);
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
