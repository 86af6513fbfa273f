// A copy of batches that were read, to be sent from: a producer writes its fields into them. Its memory is used again once
// all of them have been acknowledged. Whatever fails leaves it to the collector, since a broken connection may still hold it.
import type { BufferPool } from '../runtime/buffer-pool.ts';

export class OwnCopy {
  readonly bytes: Buffer;
  readonly #memory: BufferPool;
  #holders = 1;

  /** Held by its maker. */
  constructor(memory: BufferPool, batches: Buffer) {
    this.#memory = memory;
    this.bytes = memory.take(batches.length);
    batches.copy(this.bytes);
  }

  hold(): void {
    this.#holders++;
  }

  release(): void {
    this.#holders--;
    if (this.#holders === 0) this.#memory.give(this.bytes);
  }
}
