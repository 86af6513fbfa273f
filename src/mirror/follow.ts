// A partition whose primary is the target, copied back: its batches are appended here as the target orders them, and with
// each commits how far that is (kafka.mirror_partitions) and where it is (kafka.mirror_ranges). So consumers and groups go on
// here, and once everything is here the topic can be produced to here again. A producer whose batches were passed on
// (external.ts) has its own id again: this log then knows its sequences as if it had taken them itself.
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import * as header from '../protocol/record-batch.ts';
import type { KafkaPartition } from '../source/kafka-partition.ts';
import { ready } from '../source/ready.ts';
import type { AppendChain, AppendResult, CarriedRow, CarriedStatement } from '../storage/group.ts';
import type { Log } from '../storage/log.ts';
import type { Topic } from '../storage/topics.ts';
import type { ClientIds } from './client-ids.ts';
import type { CopyPlace } from './copy.ts';
import { MirrorStopped } from './definition.ts';
import type { CopyCounts, CopyStatus, NotedCopy } from './positions.ts';
import { Ranges } from './ranges.ts';
import { batchOf, recordsOf } from './rebuild.ts';

export interface FollowContext {
  readonly log: Log;
  readonly ids: ClientIds;
  readonly stopping: AbortSignal;
}

/** Appended and not committed yet. */
const mostUnderWay = 64;

const position: CarriedStatement = {
  head: 'WITH n (copy_id, next_offset, target_next_offset, source_offset, target_offset, records) AS (VALUES',
  tail: `), r AS (
      INSERT INTO kafka.mirror_ranges (copy_id, source_offset, target_offset, records)
      SELECT copy_id, source_offset, target_offset, records FROM n
      ON CONFLICT (copy_id, source_offset) DO UPDATE SET records = excluded.records)
    UPDATE kafka.mirror_partitions p
    SET next_offset = m.next_offset, target_next_offset = m.target_next_offset, behind_since = NULL, noted_at = now()
    FROM (SELECT copy_id, max(next_offset) AS next_offset, max(target_next_offset) AS target_next_offset
          FROM n GROUP BY copy_id) m
    WHERE p.copy_id = m.copy_id`,
};

export class PartitionFollow {
  readonly place: CopyPlace;
  readonly copyId: number;
  retried = 0;
  /** Records of producers here that the target has acknowledged. */
  passedOn = 0;
  readonly #context: FollowContext;
  readonly #topic: Topic;
  readonly #target: KafkaPartition;
  readonly #counts: CopyCounts;
  readonly #ranges: Ranges;
  /** Here, and in the target: the next to copy. */
  #next: bigint;
  #targetNext: bigint;
  /** Offsets have been the same on both sides, and stay so: gaps are kept. */
  readonly #same: boolean;
  /** In the target: everything before it is here. */
  #committed: bigint;
  readonly #chain: AppendChain = { broken: false };
  readonly #underWay: Promise<void>[] = [];
  #failure: Error | undefined;
  #awaited: { readonly offset: bigint; reached(): void } | undefined;

  constructor(context: FollowContext, topic: Topic, place: CopyPlace, noted: NotedCopy, target: KafkaPartition) {
    this.#context = context;
    this.#topic = topic;
    this.place = place;
    this.#target = target;
    this.copyId = noted.copyId;
    this.#counts = noted.counts;
    this.#ranges = new Ranges(noted.lastRange);
    this.#next = noted.position.nextOffset;
    this.#targetNext = noted.position.targetNextOffset;
    this.#committed = this.#targetNext;
    this.#same = this.#next === this.#targetNext;
    if (place.source.end !== this.#next) {
      throw new MirrorStopped(
        `partition ${place.partition} of ${place.topic} ends at ${place.source.end}, and what has been copied from the target ends at ${this.#next}: something else was appended, or this log was set back`,
        'compare the two sides',
      );
    }
  }

  /** Everything before it in the target is here. */
  get copied(): bigint {
    return this.#committed;
  }

  /** Calls back once everything before `offset` in the target is here. */
  whenAt(offset: bigint, reached: () => void): void {
    this.#awaited = { offset, reached };
  }

  status(): CopyStatus {
    const { topic, targetTopic, partition, source } = this.place;
    const { highWatermark } = this.#target;
    const lag = highWatermark > this.#committed ? highWatermark - this.#committed : 0n;
    return {
      topic,
      partition,
      targetTopic,
      primary: 'target',
      nextOffset: this.#next,
      endOffset: source.highWatermark,
      targetNextOffset: this.#committed,
      lag,
      lagMs: 0,
      ...this.#counts,
      retried: this.retried,
      passedOn: this.passedOn,
    };
  }

  /** Positions commit with their batches. */
  toNote(): undefined {
    return undefined;
  }

  unnoted(): void {}

  async run(): Promise<void> {
    try {
      await this.#follow();
    } finally {
      await this.settle();
    }
  }

  async #follow(): Promise<void> {
    const { stopping } = this.#context;
    const { source } = this.place;
    this.#tell();
    while (!stopping.aborted && !source.deleted) {
      if (this.#failure) throw this.#failure;
      const { error, chunks, aborted } = await this.#target.read(this.#targetNext);
      if (error === ErrorCode.OFFSET_OUT_OF_RANGE) this.#outOfRange();
      if (error !== ErrorCode.NONE) throw new Error(`${this.place.targetTopic}: ${errorOf(error).name}`);
      for (const chunk of chunks) {
        for (const batch of header.splitBatches(chunk)) {
          if (stopping.aborted || header.lastOffset(batch) < this.#targetNext) continue;
          await this.#take(batch, aborted?.has(header.baseOffset(batch)) ?? false);
        }
      }
      if (chunks.length === 0) await ready(this.#target, this.#targetNext, stopping);
    }
  }

  async settle(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  #outOfRange(): void {
    const { targetTopic, partition } = this.place;
    const { logStartOffset, highWatermark } = this.#target;
    throw new MirrorStopped(
      `partition ${partition} of ${targetTopic} holds ${logStartOffset} to ${highWatermark} in the target, and ${this.#targetNext} is to be copied: the target has lost records, or deleted them before they were copied back`,
      `to go on without them, run: UPDATE kafka.mirror_partitions SET target_next_offset = ${logStartOffset} WHERE copy_id = ${this.copyId}; then resume the mirror`,
    );
  }

  async #take(batch: Buffer, aborted: boolean): Promise<void> {
    const end = header.lastOffset(batch) + 1n;
    const appendable = header.isControl(batch) || aborted ? undefined : await this.#appendable(batch);
    let from = header.baseOffset(batch);
    if (from < this.#targetNext) from = this.#targetNext;
    this.#targetNext = end;
    if (appendable === undefined) {
      // What is before it may still be on its way.
      const before = this.#underWay.at(-1) ?? Promise.resolve();
      this.#track(before.then(() => this.#arrived(end)));
      return;
    }
    const { log } = this.#context;
    const records = BigInt(header.lastOffsetDelta(appendable)) + 1n;
    const expected = this.#same && from > this.#next ? from : this.#next;
    this.#next = expected + records;
    const { result } = log.appendHere(this.#topic, this.place.source, appendable, -1, false, {
      carried: this.#carried(expected, from, records, end),
      chain: this.#chain,
      leastOffset: expected,
    });
    this.#track(result.then(answer => this.#appended(answer, expected, end)));
    if (this.#underWay.length >= mostUnderWay) await this.#underWay[0];
  }

  #track(done: Promise<void>): void {
    this.#underWay.push(done);
    void done.then(() => this.#underWay.splice(this.#underWay.indexOf(done), 1));
  }

  /** As this log takes it; undefined where it holds nothing new. */
  async #appendable(batch: Buffer): Promise<Buffer | undefined> {
    const isWhole =
      header.baseOffset(batch) >= this.#targetNext &&
      header.recordCount(batch) === header.lastOffsetDelta(batch) + 1 &&
      !header.isTransactional(batch);
    if (!isWhole) {
      const records = (await recordsOf(batch)).filter(({ offset }) => offset >= this.#targetNext);
      return records.length === 0 ? undefined : batchOf(records, batch);
    }
    const copy = Buffer.from(batch);
    const producerId = this.#context.ids.here(header.producerId(batch));
    if (producerId === undefined) header.assignProducer(copy, -1n, -1, -1);
    else header.assignProducer(copy, producerId, header.producerEpoch(batch), header.baseSequence(batch));
    header.assignOffset(copy, 0, 0n, -1);
    return copy;
  }

  #carried(sourceOffset: bigint, targetOffset: bigint, records: bigint, targetNext: bigint): CarriedRow {
    const range = this.#ranges.add({ sourceOffset, count: Number(records) }, targetOffset);
    return {
      statement: position,
      key: `${this.copyId} ${range.sourceOffset}`,
      row: `(${this.copyId}, ${sourceOffset + records}, ${targetNext}, ${range.sourceOffset}, ${range.targetOffset}, ${range.records})`,
    };
  }

  #appended({ error, baseOffset }: AppendResult, expected: bigint, end: bigint): void {
    const { topic, partition } = this.place;
    if (error === ErrorCode.NONE && baseOffset === expected) {
      this.#arrived(end);
      return;
    }
    const said = error === ErrorCode.NONE ? `it was at ${baseOffset}, not ${expected}` : errorOf(error).name;
    this.#failure ??= new Error(`partition ${partition} of ${topic} did not take a batch of the target: ${said}`);
    this.#target.wake();
  }

  #arrived(end: bigint): void {
    if (this.#failure) return;
    if (end > this.#committed) this.#committed = end;
    this.#tell();
  }

  #tell(): void {
    const awaited = this.#awaited;
    if (awaited === undefined || this.#committed < awaited.offset) return;
    this.#awaited = undefined;
    awaited.reached();
  }
}
