// One partition of a remote Kafka on its way into this log, batch by batch as they are stored there, and read committed: what
// is of open or aborted transactions, and the markers of their ends, is left out. How far it is commits with each batch
// (kafka.mirror_ranges), so that beginning again is exact, whatever broke.
//
// A batch asks for its source's offset, moved by as much as the last one was (`leastOffset`): gaps of the source are gaps
// here. Where somebody else has written to the topic meanwhile, it comes behind that, and a new range begins.
import type { Logger } from 'pino';
import { KafkaError } from '../client/errors.ts';
import { codecNames } from '../protocol/compression.ts';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import * as header from '../protocol/record-batch.ts';
import { holdsRecords } from '../protocol/records.ts';
import type { Throttle } from '../runtime/throttle.ts';
import type { KafkaPartition } from '../source/kafka-partition.ts';
import { ready } from '../source/ready.ts';
import type { AppendChain, CarriedStatement, PendingAppend } from '../storage/group.ts';
import type { Log } from '../storage/log.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import type { Topic } from '../storage/topics.ts';
import type { DeadLetters } from './dead-letters.ts';
import { MirrorStopped, TopicMissing } from './definition.ts';
import { pause } from './pause.ts';
import type { CopyCounts, CopyStatus, CopyToNote, NotedCopy, OffsetRange } from './positions.ts';
import { batchOf, recordsOf } from './rebuild.ts';
import type { Copy } from './session.ts';

export interface InboundContext {
  readonly log: Log;
  readonly throttle: Throttle;
  readonly deadLetters: DeadLetters;
  readonly strict: boolean;
  readonly stopping: AbortSignal;
  readonly hurry: AbortSignal;
  readonly logger: Logger;
}

export interface InboundPlace {
  readonly source: KafkaPartition;
  readonly topic: Topic;
  readonly target: PartitionLog;
}

/** Up to which range the copy has come with a batch; the log is told when it forms the group. */
interface Landing {
  range: OffsetRange;
}

const landed: CarriedStatement = {
  head: 'INSERT INTO kafka.mirror_ranges (copy_id, source_offset, target_offset, records) VALUES',
  tail: 'ON CONFLICT (copy_id, source_offset) DO UPDATE SET target_offset = excluded.target_offset, records = excluded.records',
};

export class InboundCopy implements Copy {
  readonly place: InboundPlace;
  readonly copyId: number;
  readonly #context: InboundContext;
  readonly #counts: CopyCounts;
  readonly #chain: AppendChain = { broken: false };
  /** The newest; where it ends is how far the copy is, but for offsets without records. */
  #range: OffsetRange;
  /** In the source: everything before it is here, skipped or in the dead letters. */
  #nextOffset: bigint;
  #behindSince: number | undefined;
  #changed = true;
  #notedEnd = -1n;
  /** With the log. */
  readonly #pending = new Set<PendingAppend>();
  #failure: Error | undefined;

  constructor(context: InboundContext, place: InboundPlace, { copyId, position, counts, lastRange }: NotedCopy) {
    this.#context = context;
    this.place = place;
    this.copyId = copyId;
    const { nextOffset, targetNextOffset } = position;
    this.#range = lastRange ?? { sourceOffset: nextOffset, targetOffset: targetNextOffset, records: 0n };
    this.#nextOffset = nextOffset;
    if (endOf(this.#range) > nextOffset) this.#nextOffset = endOf(this.#range);
    // What came after it was last noted; by its offsets, for what they hold is not known any more.
    this.#counts = { ...counts, forwarded: counts.forwarded + this.#nextOffset - nextOffset };
  }

  toString(): string {
    return `partition ${this.place.source.partition} of ${this.place.source.topic.name}`;
  }

  status(): CopyStatus {
    const { source, topic } = this.place;
    const lag = source.highWatermark - this.#nextOffset;
    return {
      topic: source.topic.name,
      partition: source.partition,
      targetTopic: topic.name,
      nextOffset: this.#nextOffset,
      endOffset: source.highWatermark,
      targetNextOffset: this.#targetNextOffset,
      lag: lag > 0n ? lag : 0n,
      lagMs: this.#behindSince === undefined ? 0 : Math.max(0, Date.now() - this.#behindSince),
      ...this.#counts,
      retried: 0,
    };
  }

  get #targetNextOffset(): bigint {
    return this.#range.targetOffset + this.#range.records;
  }

  /** But for ranges, which commit with the batches. */
  toNote(): CopyToNote | undefined {
    const { highWatermark } = this.place.source;
    if (!this.#changed && highWatermark === this.#notedEnd) return undefined;
    this.#changed = false;
    this.#notedEnd = highWatermark;
    return {
      copyId: this.copyId,
      position: {
        nextOffset: this.#nextOffset,
        targetNextOffset: this.#targetNextOffset,
        producerId: -1n,
        nextSequence: 0,
      },
      counts: { ...this.#counts },
      behindSince: this.#behindSince,
      sourceEnd: highWatermark,
      ranges: [],
    };
  }

  unnoted(): void {
    this.#changed = true;
  }

  /** Ends with everything answered that was given to the log: what comes after it knows how far this one came. */
  async run(): Promise<void> {
    const { stopping, hurry } = this.#context;
    const { source, target, topic } = this.place;
    const cut = (): void => {
      for (const append of this.#pending) void append.expire(ErrorCode.REQUEST_TIMED_OUT);
    };
    hurry.addEventListener('abort', cut);
    try {
      while (!stopping.aborted && !source.deleted) {
        const { error, chunks, aborted } = await source.read(this.#nextOffset);
        if (target.deleted) throw new TopicMissing(`topic ${topic.name} has been deleted here`);
        if (error !== ErrorCode.NONE) this.#unreadable(error);
        else if (chunks.length > 0) await this.#take(chunks, aborted);
        else await ready(source, this.#nextOffset, stopping);
      }
    } finally {
      hurry.removeEventListener('abort', cut);
    }
  }

  /** All of what one fetch has brought; in the log when this resolves. */
  async #take(batches: readonly Buffer[], aborted: ReadonlySet<bigint> | undefined): Promise<void> {
    const given: Promise<void>[] = [];
    try {
      const next = await this.#giveAll(batches, aborted, given);
      await Promise.all(given);
      if (this.#failure !== undefined) throw this.#failure;
      this.#nextOffset = next;
      this.#behindSince = undefined;
      this.#changed = true;
    } finally {
      await Promise.all(given);
    }
  }

  /** Returns what follows the last. `given` resolve when all have an answer. */
  async #giveAll(
    batches: readonly Buffer[],
    aborted: ReadonlySet<bigint> | undefined,
    given: Promise<void>[],
  ): Promise<bigint> {
    const { stopping } = this.#context;
    let before: Landing = { range: this.#range };
    let next = this.#nextOffset;
    for (const batch of batches) {
      if (stopping.aborted || this.#failure !== undefined) break;
      const end = header.lastOffset(batch) + 1n;
      if (end <= next) continue;
      const isEmpty = header.isControl(batch) || header.recordCount(batch) === 0;
      if (isEmpty || aborted?.has(header.baseOffset(batch))) {
        // Offsets without records.
      } else if (!canBeRead(batch)) {
        await this.#refuse(batch);
      } else {
        for (const part of await this.#parts(batch, next)) {
          const { answered, landing } = await this.#give(part, before);
          given.push(answered);
          before = landing;
        }
      }
      next = end;
    }
    return next;
  }

  /** Nobody here could read it, nor what comes after it: to the dead letters, as it is. */
  async #refuse(batch: Buffer): Promise<void> {
    const { deadLetters, strict } = this.#context;
    const { name: topic } = this.place.source.topic;
    const { partition } = this.place.source;
    const offset = header.baseOffset(batch);
    const at = `${topic}-${partition}@${offset}`;
    const error = new KafkaError(ErrorCode.CORRUPT_MESSAGE, at, 'the records of the batch cannot be read');
    if (strict) throw new MirrorStopped(error.message, 'set strict: false, and the batch goes to the dead letters');
    const record = { offset, timestamp: header.maxTimestamp(batch), key: null, value: batch, headers: [] };
    await deadLetters.send({ copyId: this.copyId, topic, partition, record, error });
    this.#counts.failed += BigInt(header.lastOffsetDelta(batch)) + 1n;
    this.#changed = true;
  }

  /** As the log is given them: copies, the first at its own offset. Several where only the end of a batch is wanted. */
  async #parts(batch: Buffer, from: bigint): Promise<Buffer[]> {
    const offset = header.baseOffset(batch);
    if (offset >= from) {
      const copy = Buffer.from(batch);
      header.clearProducer(copy);
      return [copy];
    }
    const runs: (typeof records)[] = [];
    const records = (await recordsOf(batch)).filter(record => record.offset >= from);
    for (const record of records) {
      const last = runs.at(-1);
      if (last && last.at(-1)!.offset + 1n === record.offset) last.push(record);
      else runs.push([record]);
    }
    return Promise.all(
      runs.map(async run => {
        const part = await batchOf(run, batch);
        header.assignOffset(part, 0, run[0]!.offset, -1);
        return part;
      }),
    );
  }

  /** Gives it to the log; what that resolves with resolves once it is there, or has failed. */
  async #give(
    batch: Buffer,
    before: Landing,
  ): Promise<{ readonly answered: Promise<void>; readonly landing: Landing }> {
    const { log, throttle, stopping } = this.#context;
    const sourceOffset = header.baseOffset(batch);
    const span = BigInt(header.lastOffsetDelta(batch)) + 1n;
    const records = header.recordCount(batch);
    this.#behindSince ??= Number(header.maxTimestamp(batch));
    const waitMs = throttle.spend(records, batch.length);
    if (waitMs > 0) await pause(waitMs, stopping);
    const landing: Landing = { range: before.range };
    const append = log.append(this.place.topic, this.place.target, batch, -1, false, {
      leastOffset: sourceOffset + this.#range.targetOffset - this.#range.sourceOffset,
      chain: this.#chain,
      carried: baseOffset => {
        // Those before it have been told theirs.
        landing.range = extended(before.range, sourceOffset, baseOffset, span);
        const { sourceOffset: from, targetOffset, records: held } = landing.range;
        return {
          statement: landed,
          key: `${this.copyId} ${from}`,
          row: `(${this.copyId}, ${from}, ${targetOffset}, ${held})`,
        };
      },
    });
    return { answered: this.#answered(append, sourceOffset, landing, records), landing };
  }

  async #answered(append: PendingAppend, sourceOffset: bigint, landing: Landing, records: number): Promise<void> {
    this.#pending.add(append);
    if (this.#context.hurry.aborted) void append.expire(ErrorCode.REQUEST_TIMED_OUT);
    const { error } = await append.result;
    this.#pending.delete(append);
    if (error !== ErrorCode.NONE) {
      this.#failure ??= new Error(`${this} was not taken at ${sourceOffset}: ${errorOf(error).name}`);
      return;
    }
    this.#range = landing.range;
    this.#nextOffset = endOf(landing.range);
    this.#counts.forwarded += BigInt(records);
    this.#changed = true;
  }

  /** Retention was faster; or the source has lost what was copied. */
  #unreadable(error: number): void {
    const { logStartOffset, highWatermark } = this.place.source;
    if (error !== ErrorCode.OFFSET_OUT_OF_RANGE) {
      throw new Error(`${this} cannot be read at ${this.#nextOffset}: ${errorOf(error).name}`);
    }
    if (this.#nextOffset > highWatermark) {
      throw new MirrorStopped(
        `${this} ends at ${highWatermark} in the source, and is here up to ${this.#nextOffset}: the source has lost records, or was set back`,
        'compare the two sides; to begin anew, delete the mirror and the topic here, and make the mirror again',
      );
    }
    if (this.#context.strict) {
      throw new MirrorStopped(
        `${this} begins at ${logStartOffset}, and the mirror is at ${this.#nextOffset}: records are gone that it has not copied`,
        'set strict: false to go on behind them',
      );
    }
    this.#counts.skipped += logStartOffset - this.#nextOffset;
    this.#nextOffset = logStartOffset;
    this.#changed = true;
  }
}

/** As far as that can be told without unpacking it. */
function canBeRead(batch: Buffer): boolean {
  const count = header.recordCount(batch);
  if (count < 0 || count > header.lastOffsetDelta(batch) + 1) return false;
  if (header.codec(batch) !== 0) return header.codec(batch) < codecNames.length;
  return holdsRecords(batch.subarray(header.headerBytes), count);
}

const endOf = ({ sourceOffset, records }: OffsetRange): bigint => sourceOffset + records;

/** `range` up to a batch that has landed at `baseOffset`, or where that is not where it leads: one that begins with it. */
function extended(range: OffsetRange, sourceOffset: bigint, baseOffset: bigint, span: bigint): OffsetRange {
  if (baseOffset - sourceOffset !== range.targetOffset - range.sourceOffset) {
    return { sourceOffset, targetOffset: baseOffset, records: span };
  }
  return { ...range, records: sourceOffset + span - range.sourceOffset };
}
