// The newest runs of all partitions, up to a bound in bytes, so that consumers who keep up cost Postgres nothing. A run
// is copied into a slab when it has committed (a gigabyte takes a tenth of a second), so that the request it came in can
// be let go. Eviction is first in, first out over all partitions, a whole slab at a time. What a reader holds is pinned:
// an evicted slab is used again at once if nobody holds it, and otherwise left to the collector.
import { batchBytes, lastOffset } from '../protocol/record-batch.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';

/** Consecutive batches of one partition that were committed together: what a row holds. */
export interface Run {
  readonly baseOffset: bigint;
  readonly lastOffset: bigint;
  readonly batches: readonly Buffer[];
  readonly bytes: number;
}

interface CachedRun {
  readonly baseOffset: bigint;
  readonly lastOffset: bigint;
  readonly records: Buffer;
  readonly slab: Slab;
}

interface Slab {
  readonly bytes: Buffer;
  filled: number;
  readonly runs: { readonly tail: Tail; readonly run: CachedRun }[];
  /** Reads whose answers are not with their clients yet. */
  pins: number;
}

export interface TailRead {
  /** Each one or more whole batches. */
  readonly chunks: Buffer[];
  readonly bytes: number;
  /** Says that the bytes have been sent. */
  release(): void;
}

const defaultSlabBytes = 1024 * 1024;

/** The cached runs of one partition: consecutive, the newest last. */
export class Tail {
  #runs: CachedRun[] = [];
  #first = 0;

  /** The first offset held, or undefined when none is. */
  get start(): bigint | undefined {
    return this.#runs[this.#first]?.baseOffset;
  }

  push(run: CachedRun): void {
    this.#runs.push(run);
  }

  /** Lets go of `run`, the oldest, unless `clear` already has. */
  evict(run: CachedRun): void {
    if (this.#runs[this.#first] !== run) return;
    this.#first++;
    // Compact once half the array is empty: amortised constant time.
    if (this.#first > 32 && this.#first * 2 > this.#runs.length) {
      this.#runs = this.#runs.slice(this.#first);
      this.#first = 0;
    }
  }

  /** Lets go of everything: the topic was deleted, or the log was cut back. */
  clear(): void {
    this.#runs = [];
    this.#first = 0;
  }

  /**
   * Batches from the one that holds `offset` on, below `end`, up to `maxBytes`; the first in any case if `atLeastOne`.
   * `end` is where a commit ended, and so never inside a run.
   */
  read(offset: bigint, end: bigint, maxBytes: number, atLeastOne: boolean): TailRead {
    const chunks: Buffer[] = [];
    const pinned: Slab[] = [];
    let bytes = 0;
    for (let i = this.#find(offset); i < this.#runs.length && this.#runs[i]!.baseOffset < end; i++) {
      const { records, slab } = this.#runs[i]!;
      const from = bytes === 0 ? offset : 0n;
      const chunk = sliceRun(records, from, maxBytes - bytes, atLeastOne && bytes === 0);
      if (chunk.length === 0) break;
      chunks.push(chunk);
      bytes += chunk.length;
      slab.pins++;
      pinned.push(slab);
      if (!endsWith(records, chunk)) break;
    }
    const release = () => {
      for (const slab of pinned.splice(0)) slab.pins--;
    };
    return { chunks, bytes, release };
  }

  /** Index of the run that holds `offset`: binary search. */
  #find(offset: bigint): number {
    let low = this.#first;
    let high = this.#runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#runs[middle]!.lastOffset < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export class TailCache {
  readonly #maxBytes: number;
  readonly #memory: BufferPool;
  readonly #slabBytes: number;
  #slabs: Slab[] = [];
  #bytes = 0;

  constructor(maxBytes: number, memory: BufferPool, slabBytes: number = defaultSlabBytes) {
    this.#maxBytes = maxBytes;
    this.#memory = memory;
    this.#slabBytes = slabBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(tail: Tail, run: Run): void {
    if (run.bytes > this.#maxBytes) {
      tail.clear(); // what is held must be consecutive
      return;
    }
    let slab = this.#slabs.at(-1);
    if (slab === undefined || slab.filled + run.bytes > slab.bytes.length) {
      slab = { bytes: this.#memory.take(Math.max(this.#slabBytes, run.bytes)), filled: 0, runs: [], pins: 0 };
      this.#slabs.push(slab);
      this.#bytes += slab.bytes.length;
      while (this.#bytes > this.#maxBytes && this.#slabs.length > 1) this.#evictOldest();
    }
    const start = slab.filled;
    for (const batch of run.batches) {
      batch.copy(slab.bytes, slab.filled);
      slab.filled += batch.length;
    }
    const { baseOffset, lastOffset: last } = run;
    const cached = { baseOffset, lastOffset: last, records: slab.bytes.subarray(start, slab.filled), slab };
    slab.runs.push({ tail, run: cached });
    tail.push(cached);
  }

  #evictOldest(): void {
    const slab = this.#slabs.shift()!;
    for (const { tail, run } of slab.runs) tail.evict(run);
    this.#bytes -= slab.bytes.length;
    if (slab.pins === 0) this.#memory.give(slab.bytes);
  }
}

/**
 * A run's batches from the one that holds `offset` on, as one piece of `maxBytes` at the most; the first batch in any
 * case if `atLeastOne`.
 */
export function sliceRun(records: Buffer, offset: bigint, maxBytes: number, atLeastOne: boolean): Buffer {
  let from = 0;
  while (from < records.length && lastOffset(records, from) < offset) from += batchBytes(records, from);
  let to = records.length;
  if (to - from > maxBytes) {
    to = from;
    if (atLeastOne) to += batchBytes(records, to);
    while (to < records.length && to + batchBytes(records, to) - from <= maxBytes) to += batchBytes(records, to);
  }
  return records.subarray(from, to);
}

/** Whether `slice` reaches to the end of the run it was cut from: only then may the next run follow it. */
export function endsWith(records: Buffer, slice: Buffer): boolean {
  return slice.byteOffset + slice.length === records.byteOffset + records.length;
}

/** Cuts a row's bytes into its batches, from the one that holds `offset` on. */
export function cutRun(records: Buffer, offset: bigint): Buffer[] {
  const batches: Buffer[] = [];
  for (let start = 0; start < records.length; ) {
    const end = start + batchBytes(records, start);
    if (lastOffset(records, start) >= offset) batches.push(records.subarray(start, end));
    start = end;
  }
  return batches;
}
