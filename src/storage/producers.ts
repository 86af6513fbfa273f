// The idempotent producers of one partition (KIP-98): for each producer id its epoch and last five batches, so that
// a repeated batch is answered with the offset it got the first time and a gap in sequences is refused. Nothing
// is written per batch: after a restart the state is the newest snapshot plus the headers of the batches since.
import { ErrorCode } from '../protocol/errors.ts';
import * as batchHeader from '../protocol/record-batch.ts';

/** As many as a client may have in flight (max.in.flight.requests.per.connection of an idempotent producer). */
const rememberedBatches = 5;

/**
 * Producers that a partition remembers; of more it forgets those that have not written for the longest. Each takes some
 * 400 bytes (measured), so a partition 4 MB at the most, whatever producer ids somebody makes up within producer.id.expiration.ms.
 */
export const mostProducers = 10_000;

interface Remembered {
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly baseOffset: bigint;
}

interface ProducerEntry {
  readonly epoch: number;
  /** ms since the Unix epoch, the broker's clock; entries unused for long are forgotten. */
  readonly usedAt: number;
  readonly batches: readonly Remembered[];
}

/** Producer id, epoch, usedAt, then [first sequence, last sequence, base offset] of each remembered batch. */
export type Snapshot = [string, number, number, [number, number, string][]][];

export type SequenceCheck =
  | { readonly kind: 'append' }
  | { readonly kind: 'duplicate'; readonly baseOffset: bigint }
  | { readonly kind: 'refused'; readonly error: number };

const append: SequenceCheck = { kind: 'append' };

export class Producers {
  /** In the order of their last use. */
  readonly #entries = new Map<bigint, ProducerEntry>();
  /** What each group in flight replaced, oldest first, so that a commit that failed can be taken back. */
  #undo: Map<bigint, ProducerEntry | undefined>[] = [];

  get size(): number {
    return this.#entries.size;
  }

  /** Looks at a batch that is about to be appended. */
  check(batch: Buffer): SequenceCheck {
    const producerId = batchHeader.producerId(batch);
    if (producerId < 0n) return append;
    const entry = this.#entries.get(producerId);
    if (entry === undefined) return append; // never seen, or forgotten: any sequence begins it (KIP-360)
    const epoch = batchHeader.producerEpoch(batch);
    const first = batchHeader.baseSequence(batch);
    if (epoch < entry.epoch) return { kind: 'refused', error: ErrorCode.INVALID_PRODUCER_EPOCH };
    if (epoch > entry.epoch) {
      return first === 0 ? append : { kind: 'refused', error: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER };
    }
    const last = addSequence(first, batchHeader.lastOffsetDelta(batch));
    const same = entry.batches.find(known => known.firstSequence === first && known.lastSequence === last);
    if (same) return { kind: 'duplicate', baseOffset: same.baseOffset };
    const newest = entry.batches.at(-1);
    if (newest === undefined || addSequence(newest.lastSequence, 1) === first) return append;
    // Also for a batch older than those remembered: DUPLICATE_SEQUENCE_NUMBER is success to clients, and would lose the
    // part of an overlapping batch that is new.
    return { kind: 'refused', error: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER };
  }

  /** A group begins: what is appended from now on is its own, until the next begins. */
  begin(): void {
    this.#undo.push(new Map());
  }

  /** Notes a batch as appended at `baseOffset`. */
  append(batch: Buffer, baseOffset: bigint, now: number): void {
    const producerId = batchHeader.producerId(batch);
    if (producerId < 0n) return;
    const undo = this.#undo.at(-1)!;
    if (!undo.has(producerId)) undo.set(producerId, this.#entries.get(producerId));
    this.#note(batch, baseOffset, now);
  }

  /** The oldest group has committed. */
  settle(): void {
    this.#undo.shift();
  }

  /** Takes the newest group back. */
  revert(): void {
    for (const [producerId, entry] of this.#undo.pop() ?? []) {
      if (entry === undefined) this.#entries.delete(producerId);
      else this.#entries.set(producerId, entry); // where it is: as if used last
    }
  }

  /** Forgets producers unused since `before` (producer.id.expiration.ms). */
  expire(before: number): void {
    for (const [producerId, entry] of this.#entries) if (entry.usedAt < before) this.#entries.delete(producerId);
  }

  clear(): void {
    this.#entries.clear();
    this.#undo = [];
  }

  snapshot(): Snapshot {
    return Array.from(this.#entries, ([producerId, entry]) => [
      producerId.toString(),
      entry.epoch,
      entry.usedAt,
      entry.batches.map(batch => [batch.firstSequence, batch.lastSequence, batch.baseOffset.toString()]),
    ]);
  }

  restore(snapshot: Snapshot): void {
    for (const [producerId, epoch, usedAt, batches] of snapshot) {
      this.#entries.set(BigInt(producerId), {
        epoch,
        usedAt,
        batches: batches.map(([firstSequence, lastSequence, baseOffset]) => ({
          firstSequence,
          lastSequence,
          baseOffset: BigInt(baseOffset),
        })),
      });
    }
  }

  /** Takes in a stored batch, in offset order, after `restore`. */
  replay(batch: Buffer, now: number): void {
    if (batchHeader.producerId(batch) >= 0n) this.#note(batch, batchHeader.baseOffset(batch), now);
  }

  #note(batch: Buffer, baseOffset: bigint, now: number): void {
    const producerId = batchHeader.producerId(batch);
    const epoch = batchHeader.producerEpoch(batch);
    const firstSequence = batchHeader.baseSequence(batch);
    const lastSequence = addSequence(firstSequence, batchHeader.lastOffsetDelta(batch));
    const before = this.#entries.get(producerId);
    const kept = before?.epoch === epoch ? before.batches.slice(-(rememberedBatches - 1)) : [];
    this.#entries.delete(producerId);
    this.#entries.set(producerId, {
      epoch,
      usedAt: now,
      batches: [...kept, { firstSequence, lastSequence, baseOffset }],
    });
    if (this.#entries.size > mostProducers) {
      const [unusedLongest] = this.#entries.keys();
      this.#entries.delete(unusedLongest!);
    }
  }
}

/** Sequences wrap from 2^31 - 1 to 0. */
function addSequence(sequence: number, delta: number): number {
  return (sequence + delta) % 0x8000_0000;
}
