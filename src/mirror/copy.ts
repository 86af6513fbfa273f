// One partition on its way to the target, batch by batch as they are stored. The producer's sequence in the target counts
// the offsets that have gone there, so that the target's own end tells how far the copy is (positions.ts, docs/decisions/0006):
//
//   recover   our batches behind the noted end say what else had arrived
//   send      in order, up to five under way; the first alone, read back and compared
//   refused   nothing is under way any more; the batch in halves, down to the record, which goes to the dead letters; what is
//             passed over is noted before anything follows
//
// Whoever sends the same sequence sends the same records: a request of a process that died, and comes late, is a repetition
// of ours or ours of it.
import type { Logger } from 'pino';
import type { Cluster } from '../client/cluster.ts';
import { KafkaError } from '../client/errors.ts';
import { addSequence, type Producer } from '../client/producer.ts';
import { batchAt, holdsTheSame, ownBatches } from '../client/tail.ts';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import * as header from '../protocol/record-batch.ts';
import type { LogRecord } from '../protocol/records.ts';
import type { Throttle } from '../runtime/throttle.ts';
import type { Log } from '../storage/log.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import type { Budget } from './budget.ts';
import type { DeadLetters } from './dead-letters.ts';
import { MirrorStopped } from './definition.ts';
import { OwnCopy } from './own-copy.ts';
import { pause } from './pause.ts';
import type { CopyCounts, CopyPosition, CopyStatus, CopyToNote, NotedCopy } from './positions.ts';
import { Ranges } from './ranges.ts';
import { batchOf, recordsOf } from './rebuild.ts';
import { partOf, type Run, recounted, runsOf } from './share.ts';

export interface CopyContext {
  readonly log: Log;
  readonly cluster: Cluster;
  readonly producer: Producer;
  readonly budget: Budget;
  readonly throttle: Throttle;
  readonly deadLetters: DeadLetters;
  readonly strict: boolean;
  /** Reads at once of all partitions: what is read is not counted in the budget yet. */
  readonly reading: <T>(work: () => Promise<T>) => Promise<T>;
  note(copies: readonly CopyToNote[]): Promise<void>;
  /** A sequence was refused, or taken after that. */
  onSequence(refused: boolean): Promise<void>;
  readonly stopping: AbortSignal;
  readonly logger: Logger;
}

export interface CopyPlace {
  readonly topic: string;
  readonly targetTopic: string;
  readonly partition: number;
  readonly source: PartitionLog;
  /** Of its keys, %. */
  readonly share: number;
}

interface Sent {
  /** Its records here; several runs where only a share goes. */
  readonly runs: readonly Run[];
  readonly count: number;
  /** What it passes over. */
  readonly withheld: number;
  /** Here, behind it. */
  readonly next: bigint;
  readonly maxTimestamp: bigint;
  readonly bytes: number;
  /** As the producer made it; undefined: nothing of the share is there. */
  readonly batch: Buffer | undefined;
  /** That the batch is a part of. */
  readonly copy: OwnCopy | undefined;
  outcome: bigint | Error | undefined;
}

type ToSend = Pick<Sent, 'runs' | 'batch' | 'next'> & Partial<Pick<Sent, 'withheld' | 'copy'>>;

const readBytes = 262_144;
/** Of one partition, on their way. */
const windowBytes = 4 * 2 ** 20;
const windowBatches = 256;
/** After so long without an acknowledgement the target may have forgotten the sequence: the next batch goes alone, ms. */
const forgetsMs = 3_600_000;

/** What the target says of the records themselves. */
const recordRefusals: readonly number[] = [
  ErrorCode.MESSAGE_TOO_LARGE,
  ErrorCode.RECORD_LIST_TOO_LARGE,
  ErrorCode.INVALID_TIMESTAMP,
  ErrorCode.INVALID_RECORD,
];

const refusesRecords = (error: unknown): error is KafkaError =>
  error instanceof KafkaError && recordRefusals.includes(error.code);

export class PartitionCopy {
  readonly place: CopyPlace;
  readonly copyId: number;
  readonly #context: CopyContext;
  #position: CopyPosition;
  readonly #counts: CopyCounts;
  readonly #ranges: Ranges;
  #changed = true;
  /** The next to read; ahead of the position by what is on its way. */
  #next: bigint;
  readonly #sent: Sent[] = [];
  #sentBytes = 0;
  #acknowledgedAt = Number.NEGATIVE_INFINITY;
  #wake: () => void = () => {};
  retried = 0;
  /** Woken when the position has moved on. */
  readonly arrivals = new Set<() => void>();

  constructor(context: CopyContext, place: CopyPlace, noted: NotedCopy) {
    this.#context = context;
    this.place = place;
    this.copyId = noted.copyId;
    this.#position = noted.position;
    this.#counts = noted.counts;
    this.#ranges = new Ranges(noted.lastRange);
    this.#next = noted.position.nextOffset;
  }

  get nextOffset(): bigint {
    return this.#position.nextOffset;
  }

  toString(): string {
    return `partition ${this.place.partition} of ${this.place.topic}`;
  }

  status(): CopyStatus {
    const { topic, targetTopic, partition, source } = this.place;
    const { nextOffset, targetNextOffset } = this.#position;
    const since = this.#behindSince;
    return {
      topic,
      partition,
      targetTopic,
      primary: 'here',
      nextOffset,
      endOffset: source.highWatermark,
      targetNextOffset,
      lag: source.highWatermark > nextOffset ? source.highWatermark - nextOffset : 0n,
      lagMs: since === undefined ? 0 : Math.max(0, Date.now() - since),
      ...this.#counts,
      retried: this.retried,
    };
  }

  /** What has changed since the last time; undefined for nothing. It counts as noted, unless `unnoted` is called. */
  toNote(): CopyToNote | undefined {
    if (!this.#changed) return undefined;
    this.#changed = false;
    return {
      copyId: this.copyId,
      position: this.#position,
      counts: { ...this.#counts },
      behindSince: this.#behindSince,
      ranges: this.#ranges.take(),
    };
  }

  unnoted({ ranges }: CopyToNote): void {
    this.#changed = true;
    this.#ranges.putBack(ranges);
  }

  get #behindSince(): number | undefined {
    const oldest = this.#sent[0];
    return oldest && Number(oldest.maxTimestamp);
  }

  /** Reads back from the target, which ends at `end`, what had arrived since it was noted. */
  async recover(end: bigint): Promise<void> {
    const { cluster, log } = this.#context;
    const { targetTopic, partition, source } = this.place;
    const { targetNextOffset, producerId } = this.#position;
    if (end < targetNextOffset) {
      throw new MirrorStopped(
        `partition ${partition} of ${targetTopic} ends at ${end} in the target, which had acknowledged what is before ${targetNextOffset}: the target has lost records, or the topic was made again`,
        `to go on without them, run: UPDATE kafka.mirror_partitions SET target_next_offset = ${end} WHERE copy_id = ${this.copyId}; to copy all of it again: DELETE FROM kafka.mirror_partitions WHERE copy_id = ${this.copyId}; then resume the mirror`,
      );
    }
    const ids = new Set([producerId]);
    for await (const batch of ownBatches(cluster, targetTopic, partition, targetNextOffset, end, ids)) {
      const count = header.lastOffsetDelta(batch) + 1;
      // More than 0 where the target has compacted away what was before.
      const ahead = (header.baseSequence(batch) - this.#position.nextSequence + 0x8000_0000) % 0x8000_0000;
      const { nextOffset: from, share = 100 } = this.#position;
      const counted = await recounted(log, source, { from, passed: ahead, count, share });
      this.#acknowledged({ ...counted, count }, header.baseOffset(batch), ahead);
    }
    if (this.#position.nextOffset > source.highWatermark) {
      throw new MirrorStopped(
        `${this} ends at ${source.highWatermark}, and the target has its records up to ${this.#position.nextOffset}: this log has lost records, or was set back`,
        'compare the two sides; to begin anew, delete the mirror and the topic in the target, and make the mirror again',
      );
    }
    this.#next = this.#position.nextOffset;
  }

  /** What holds from here on: a producer, whose sequences begin at 0, and the share. Before anything is sent. */
  adopt(producerId: bigint): void {
    const { share } = this.place;
    const { producerId: before, share: noted } = this.#position;
    if (before === producerId && noted === share) return;
    const nextSequence = before === producerId ? this.#position.nextSequence : 0;
    this.#position = { ...this.#position, producerId, nextSequence, share };
    this.#changed = true;
  }

  /** Until it is told to stop, or the topic is gone; throws what it cannot go on after. */
  async run(): Promise<void> {
    const { stopping, producer } = this.#context;
    const { source, targetTopic, partition } = this.place;
    producer.begin(targetTopic, partition, this.#position.nextSequence);
    const wake = (): void => this.#wake();
    stopping.addEventListener('abort', wake);
    try {
      while (!stopping.aborted && !source.deleted) {
        const refused = this.#harvest();
        if (refused) await this.#refused(refused);
        else if (this.#canRead) await this.#readAndSend();
        else await this.#wait();
      }
    } finally {
      stopping.removeEventListener('abort', wake);
    }
  }

  /** Takes what has been acknowledged; resolves when everything sent has an answer. */
  async settle(): Promise<void> {
    while (this.#sent.length > 0) {
      if (this.#harvest()) return;
      if (this.#sent.length > 0) await this.#woken();
    }
  }

  get #canRead(): boolean {
    const { budget } = this.#context;
    if (this.#next === this.place.source.highWatermark || !budget.hasRoom) return false;
    if (this.#sent.length === 0) return true;
    return !this.#isAlone && this.#sentBytes < windowBytes && this.#sent.length < windowBatches;
  }

  /** Nothing goes beside a batch before which the target may know no sequence of ours. */
  get #isAlone(): boolean {
    return Date.now() - this.#acknowledgedAt > forgetsMs;
  }

  #woken(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = () => {
        this.#wake = () => {};
        resolve();
      };
    });
  }

  async #wait(): Promise<void> {
    const { budget } = this.#context;
    const { source } = this.place;
    const woken = this.#woken();
    const wake = (): void => this.#wake();
    source.waiters.add(wake);
    budget.onRoom(wake);
    if (this.#canRead || source.deleted || this.#context.stopping.aborted || this.#sent[0]?.outcome !== undefined)
      wake();
    await woken;
    source.waiters.delete(wake);
    budget.forget(wake);
  }

  async #readAndSend(): Promise<void> {
    const { log, reading } = this.#context;
    const { source } = this.place;
    await reading(async () => {
      const result = await log.read(source, this.#next, readBytes, true);
      try {
        if (result.error !== ErrorCode.NONE) return await this.#unreadable(result.error);
        for (const chunk of result.chunks) if (!(await this.#forward(chunk))) return;
      } finally {
        result.release();
      }
    });
  }

  /** Returns whether all of it has been taken; what was not is read again. */
  async #forward(chunk: Buffer): Promise<boolean> {
    const copy = new OwnCopy(this.#context.log.memory, chunk);
    for (const batch of header.splitBatches(copy.bytes)) {
      if (header.lastOffset(batch) < this.#next) continue;
      if (!this.#mayFollow) return false;
      await this.#take(batch, copy);
    }
    copy.release();
    return true;
  }

  /** Nothing goes behind a failure, nor beside what must go alone. */
  get #mayFollow(): boolean {
    if (this.#context.stopping.aborted) return false;
    return this.#sent.length === 0 || !(this.#isAlone || this.#sent[0]!.outcome instanceof Error);
  }

  /** `batch` is a part of `copy`, and is written to. */
  async #take(batch: Buffer, copy: OwnCopy): Promise<void> {
    const { throttle, stopping } = this.#context;
    if (header.isControl(batch) || header.isTransactional(batch)) {
      throw new MirrorStopped(
        `${this} holds a transaction at ${header.baseOffset(batch)}: a mirror does not copy transactions yet`,
        'leave the topic out (exclude)',
      );
    }
    const baseOffset = header.baseOffset(batch);
    const isCut = baseOffset < this.#next;
    const sourceOffset = isCut ? this.#next : baseOffset;
    const last = header.lastOffset(batch);
    const part = await partOf(batch, sourceOffset, this.place);
    const waitMs = part.batch ? throttle.spend(header.recordCount(part.batch), part.batch.length) : 0;
    if (waitMs > 0) await pause(waitMs, stopping);
    if (stopping.aborted) return;
    this.#next = last + 1n;
    this.#send({ ...part, next: this.#next, copy: part.batch === batch ? copy : undefined });
  }

  #send({ runs, batch, next, withheld = 0, copy }: ToSend): Sent {
    const { producer, budget } = this.#context;
    const { targetTopic, partition } = this.place;
    const sent: Sent = {
      runs,
      count: batch ? header.lastOffsetDelta(batch) + 1 : 0,
      withheld,
      next,
      maxTimestamp: batch ? header.maxTimestamp(batch) : BigInt(Date.now()),
      bytes: batch?.length ?? 0,
      batch,
      copy,
      outcome: batch ? undefined : -1n,
    };
    copy?.hold();
    const alone = this.#isAlone;
    if (batch === undefined) {
      this.#sent.push(sent);
      return sent;
    }
    budget.take(sent.bytes);
    this.#sentBytes += sent.bytes;
    this.#sent.push(sent);
    producer
      .append(targetTopic, partition, batch)
      .then(async targetOffset => {
        if (alone) await this.#verify(batch, targetOffset);
        return targetOffset;
      })
      .then(
        targetOffset => {
          sent.outcome = targetOffset;
        },
        (error: Error) => {
          sent.outcome = error;
        },
      )
      .finally(() => {
        budget.give(sent.bytes);
        this.#wake();
      });
    return sent;
  }

  /** The target takes a batch of ours for the repetition of another that has as many records. */
  async #verify(batch: Buffer, targetOffset: bigint): Promise<void> {
    const { cluster } = this.#context;
    const { targetTopic, partition } = this.place;
    const there = await batchAt(cluster, targetTopic, partition, targetOffset);
    if (there === undefined || !(await holdsTheSame(there, batch))) {
      throw new Error(
        `partition ${partition} of ${targetTopic} had another batch of ours under way; reading its end again`,
      );
    }
    await this.#context.onSequence(false);
  }

  /** Passes on what has been acknowledged. Returns what the target refuses for its records; throws any other failure. */
  #harvest(): Sent | undefined {
    for (let head = this.#sent[0]; head?.outcome !== undefined; head = this.#sent[0]) {
      const { outcome, bytes } = head;
      if (refusesRecords(outcome)) return head;
      if (outcome instanceof Error) throw outcome;
      this.#sent.shift();
      this.#sentBytes -= bytes;
      if (head.batch) this.#acknowledgedAt = Date.now();
      this.#acknowledged(head, outcome, 0);
      head.copy?.release();
    }
    return undefined;
  }

  /** `ahead`: sequences passed over. */
  #acknowledged(
    { runs, count, withheld, next }: Pick<Sent, 'runs' | 'count' | 'withheld'> & { readonly next?: bigint },
    targetOffset: bigint,
    ahead: number,
  ): void {
    const { nextSequence, targetNextOffset } = this.#position;
    let at = targetOffset;
    for (const run of runs) {
      this.#ranges.add(run, at);
      at += BigInt(run.count);
    }
    this.#counts.forwarded += BigInt(count);
    this.#counts.withheld += BigInt(withheld);
    const last = runs.at(-1);
    this.#position = {
      ...this.#position,
      nextOffset: next ?? last!.sourceOffset + BigInt(last!.count),
      targetNextOffset: count > 0 ? at : targetNextOffset,
      nextSequence: addSequence(nextSequence, count + ahead),
    };
    this.#moved();
  }

  #moved(): void {
    this.#changed = true;
    for (const look of this.arrivals) look();
  }

  /** The batch at the position is refused: its records one by one, where it must be. Then it goes on behind them. */
  async #refused(first: Sent): Promise<void> {
    const { producer, logger } = this.#context;
    const { targetTopic, partition } = this.place;
    const reason = (first.outcome as KafkaError).message;
    const { runs, count: records } = first;
    logger.warn(
      { topic: this.place.topic, partition, offset: runs[0]!.sourceOffset, records, reason },
      'the target refuses a batch; in parts then',
    );
    await producer.idle(targetTopic, partition);
    this.#sent.length = 0;
    this.#sentBytes = 0;
    const offsets = runs.flatMap(({ sourceOffset, count }) =>
      Array.from({ length: count }, (_, i) => sourceOffset + BigInt(i)),
    );
    const numbered = (await recordsOf(first.batch!)).map((record, i) => ({ ...record, offset: offsets[i]! }));
    await this.#halves(numbered, first.batch!, first.outcome as KafkaError);
    this.#next = this.#position.nextOffset;
  }

  /** `records` of `batch`, with their offsets here, have been refused. */
  async #halves(records: readonly LogRecord[], batch: Buffer, error: KafkaError): Promise<void> {
    const { producer, stopping } = this.#context;
    const { targetTopic, partition } = this.place;
    if (records.length === 1) {
      await this.#pass(records[0]!, error);
      return;
    }
    const middle = records.length >> 1;
    for (const half of [records.slice(0, middle), records.slice(middle)]) {
      if (stopping.aborted) return;
      const part = await batchOf(half, batch);
      producer.begin(targetTopic, partition, this.#position.nextSequence);
      // As after a pause: read back and compared, for a request that was refused may still be under way elsewhere.
      this.#acknowledgedAt = Number.NEGATIVE_INFINITY;
      const offsets = half.map(({ offset }) => offset);
      const sent = this.#send({ runs: runsOf(offsets), batch: part, next: offsets.at(-1)! + 1n });
      await this.#answered(sent);
      if (refusesRecords(sent.outcome)) {
        await producer.idle(targetTopic, partition);
        this.#sent.length = 0;
        this.#sentBytes = 0;
        await this.#halves(half, part, sent.outcome);
      } else {
        this.#harvest();
      }
    }
    producer.begin(targetTopic, partition, this.#position.nextSequence);
  }

  async #answered(sent: Sent): Promise<void> {
    while (sent.outcome === undefined) await this.#woken();
  }

  /** A single record that the target refuses. */
  async #pass(record: LogRecord, error: KafkaError): Promise<void> {
    const { deadLetters, strict, producer } = this.#context;
    const { topic, targetTopic, partition } = this.place;
    if (strict) {
      throw new MirrorStopped(
        `the target refuses ${topic}-${partition}@${record.offset}: ${error.message}`,
        'mend the target’s topic and resume, or set strict: false, and it goes to the dead letters',
      );
    }
    await deadLetters.send({ copyId: this.copyId, topic, partition, record, error });
    this.#counts.failed++;
    await this.#skipTo(record.offset + 1n);
    producer.begin(targetTopic, partition, this.#position.nextSequence);
    this.#acknowledgedAt = Number.NEGATIVE_INFINITY;
  }

  /** Nothing is on its way. Noted before anything follows: the sequences do not tell of it. */
  async #skipTo(offset: bigint): Promise<void> {
    this.#position = { ...this.#position, nextOffset: offset };
    this.#moved();
    const changes = this.toNote()!;
    try {
      await this.#context.note([changes]);
    } catch (error) {
      this.unnoted(changes);
      throw error;
    }
  }

  /** Retention was faster; or the topic is gone. */
  async #unreadable(error: number): Promise<void> {
    const { source } = this.place;
    if (source.deleted) return;
    if (error !== ErrorCode.OFFSET_OUT_OF_RANGE || this.#next >= source.logStartOffset) {
      throw new Error(`${this} cannot be read at ${this.#next}: ${errorOf(error).name}`);
    }
    await this.settle();
    const { nextOffset } = this.#position;
    const start = source.logStartOffset;
    if (this.#sent.length > 0 || nextOffset >= start) return;
    if (this.#context.strict) {
      throw new MirrorStopped(
        `${this} begins at ${start}, and the mirror is at ${nextOffset}: records are gone that it has not copied`,
        'set strict: false to go on behind them',
      );
    }
    this.#counts.skipped += start - nextOffset;
    await this.#skipTo(start);
    this.#next = start;
  }
}
