// What the leader knows of one partition. What readers go by changes only after a COMMIT.
import type { PendingAppend } from './group.ts';
import { Producers } from './producers.ts';
import type { Located } from './segments.ts';
import { Tail } from './tail-cache.ts';

/** What stands before a partition's log, where something does: every append comes to it first. */
export interface AppendGate {
  /** Who has put it there. */
  readonly owner?: string;
  /** `toLog` appends the batch here. `carries`: a row commits with it, so it is no producer's. */
  append(batch: Buffer, acks: number, carries: boolean, toLog: () => PendingAppend): PendingAppend;
}

export class PartitionLog {
  readonly topicId: number;
  readonly partition: number;
  logStartOffset: bigint;
  /** The end of what has committed and is flushed: what readers may see ends before it. */
  highWatermark: bigint;
  /** The end of what has committed; ahead of the high watermark while an asynchronous commit is not flushed. */
  committedEnd: bigint;
  /** The next offset to assign: ahead of `committedEnd` while commits are in flight. */
  end: bigint;
  /** Where the groups in flight began, oldest first. */
  #begun: bigint[] = [];
  /** The leader epoch that kafka.leader_epochs holds, or will hold with the groups in flight. */
  recordedEpoch = -1;
  readonly tail = new Tail();
  readonly producers = new Producers();
  /** Bytes appended since the newest producer snapshot. */
  bytesSinceSnapshot = 0;
  /** The stretch of sealed log that was read last. */
  located: Located | undefined;
  /** From this offset on nothing lay in sealed segments when so many had been sealed. */
  unsealedFrom: { readonly offset: bigint; readonly sealings: number } | undefined;
  /** Mean length of the stored rows read last. */
  likelyRowBytes: number | undefined;
  /** Woken when the high watermark or the log start moves, or the partition goes. */
  readonly waiters = new Set<() => void>();
  deleted = false;
  gate: AppendGate | undefined;
  /** Consumers are told to look for another leader. */
  refusesReads = false;
  /** Appends that have no answer yet. */
  #pending = 0;
  #whenSettled: (() => void)[] = [];
  #opening: Promise<void> | undefined;
  #opened = false;

  constructor(topicId: number, partition: number, logStartOffset: bigint, end: bigint) {
    this.topicId = topicId;
    this.partition = partition;
    this.logStartOffset = logStartOffset;
    this.highWatermark = end;
    this.committedEnd = end;
    this.end = end;
  }

  get opened(): boolean {
    return this.#opened;
  }

  /** Runs `load` (producer state) before the first append; again after it failed. */
  open(load: () => Promise<void>): Promise<void> {
    this.#opening ??= load().then(
      () => {
        this.#opened = true;
      },
      (error: unknown) => {
        this.#opening = undefined;
        throw error;
      },
    );
    return this.#opening;
  }

  appendBegun(): void {
    this.#pending++;
  }

  appendEnded(): void {
    this.#pending--;
    if (this.#pending === 0 && this.#whenSettled.length > 0) for (const wake of this.#whenSettled.splice(0)) wake();
  }

  /** Resolves when every append that the log was given has its answer. */
  async settled(): Promise<void> {
    while (this.#pending > 0) await new Promise<void>(resolve => this.#whenSettled.push(resolve));
  }

  /** The groups in flight that append to this partition. */
  get inFlight(): number {
    return this.#begun.length;
  }

  /** A group begins that appends to this partition. */
  begin(): void {
    this.#begun.push(this.end);
    this.producers.begin();
  }

  /** The oldest group in flight has committed. */
  settle(): void {
    this.#begun.shift();
    this.producers.settle();
  }

  /** Takes the newest group in flight back. */
  revert(): void {
    this.end = this.#begun.pop() ?? this.committedEnd;
    this.recordedEpoch = -1;
    this.producers.revert();
  }

  /** Postgres crashed and took back asynchronous commits that nobody had been shown. */
  cutBack(end: bigint): void {
    this.tail.clear();
    this.committedEnd = end;
    this.end = end;
    this.#begun = [];
    this.producers.clear();
    this.#opened = false;
    this.#opening = undefined;
  }

  /** After the new start has committed. */
  moveStart(offset: bigint): void {
    if (offset <= this.logStartOffset) return;
    this.logStartOffset = offset;
    this.wake();
  }

  wake(): void {
    if (this.waiters.size === 0) return;
    for (const waiter of [...this.waiters]) waiter();
  }
}
