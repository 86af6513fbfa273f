// The newest runs of all partitions, up to a bound in bytes, so that consumers who keep up cost Postgres nothing.
// Eviction is first in, first out over all partitions: batches that came in one request share its buffer, and
// so leave memory together.
import { batchBytes, lastOffset } from '../protocol/record-batch.ts';

/** Consecutive batches of one partition that were committed together: what a row holds. */
export interface Run {
  readonly baseOffset: bigint;
  readonly lastOffset: bigint;
  readonly batches: readonly Buffer[];
  readonly bytes: number;
}

/** What a run costs in memory beyond its batches. */
const runOverheadBytes = 256;

/** The cached runs of one partition: consecutive, the newest last. */
export class Tail {
  #runs: Run[] = [];
  #first = 0;

  /** The first offset held, or undefined when none is. */
  get start(): bigint | undefined {
    return this.#runs[this.#first]?.baseOffset;
  }

  push(run: Run): void {
    this.#runs.push(run);
  }

  shift(): void {
    this.#first++;
    // Compact once half the array is empty: amortised constant time.
    if (this.#first > 32 && this.#first * 2 > this.#runs.length) {
      this.#runs = this.#runs.slice(this.#first);
      this.#first = 0;
    }
  }

  clear(): void {
    this.#runs = [];
    this.#first = 0;
  }

  /** Batches from the one that holds `offset` on, up to `maxBytes`; the first in any case if `atLeastOne`. */
  read(offset: bigint, maxBytes: number, atLeastOne: boolean): { batches: Buffer[]; bytes: number } {
    const batches: Buffer[] = [];
    let bytes = 0;
    for (let i = this.#find(offset); i < this.#runs.length; i++) {
      for (const batch of this.#runs[i]!.batches) {
        if (bytes === 0 && lastOffset(batch) < offset) continue;
        if (bytes + batch.length > maxBytes && !(atLeastOne && bytes === 0)) return { batches, bytes };
        batches.push(batch);
        bytes += batch.length;
      }
    }
    return { batches, bytes };
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
  #bytes = 0;
  #order: { tail: Tail; bytes: number }[] = [];
  #first = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(tail: Tail, run: Run): void {
    const bytes = run.bytes + runOverheadBytes;
    tail.push(run);
    this.#order.push({ tail, bytes });
    this.#bytes += bytes;
    while (this.#bytes > this.#maxBytes) {
      const oldest = this.#order[this.#first++]!;
      oldest.tail.shift();
      this.#bytes -= oldest.bytes;
    }
    if (this.#first > 256 && this.#first * 2 > this.#order.length) {
      this.#order = this.#order.slice(this.#first);
      this.#first = 0;
    }
  }

  /** Lets go of a deleted topic's runs. */
  drop(tail: Tail): void {
    this.#order = this.#order.slice(this.#first).filter(entry => {
      if (entry.tail === tail) this.#bytes -= entry.bytes;
      return entry.tail !== tail;
    });
    this.#first = 0;
    tail.clear();
  }
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
