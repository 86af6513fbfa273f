// Blocks of memory for requests, for rows read and for the tail cache, used again and again. Without it every
// megabyte that passes through is a new ArrayBuffer, and V8 answers external memory with full collections: at
// 130 MB/s they took more of the process's time than everything else together (4.1 s of 7.5), and garbage that was
// waiting for the next one half of its resident memory.
//
// Giving back is the holder's promise that nobody reads the bytes any more. Never giving back is safe: the block is
// then collected like any buffer.
const smallestBlock = 65_536;
const largestBlock = 2 * 1024 * 1024;

interface SizeClass {
  readonly size: number;
  readonly free: ArrayBuffer[];
  /** Counts up: when one of this size was last asked for. */
  asked: number;
}

export class BufferPool {
  readonly #maxFreeBytes: number;
  readonly #classes = new Map<number, SizeClass>();
  /** Blocks that are taken: giving back twice, or what was never taken, must not put a block in two hands. */
  readonly #taken = new WeakSet<ArrayBufferLike>();
  #freeBytes = 0;
  #asked = 0;

  /** `maxFreeBytes`: how much may lie unused; past it blocks of the size not asked for the longest are let go. */
  constructor(maxFreeBytes: number) {
    this.#maxFreeBytes = maxFreeBytes;
  }

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** A buffer of `bytes` with arbitrary contents; pooled between 64 KiB and 2 MiB, where allocation is what costs. */
  take(bytes: number): Buffer {
    if (bytes <= smallestBlock / 2) return Buffer.allocUnsafe(bytes);
    if (bytes > largestBlock) return Buffer.allocUnsafeSlow(bytes);
    const ofSize = this.#classOf(Math.max(smallestBlock, 2 ** Math.ceil(Math.log2(bytes))));
    ofSize.asked = ++this.#asked;
    let block = ofSize.free.pop();
    if (block === undefined) block = new ArrayBuffer(ofSize.size);
    else this.#freeBytes -= ofSize.size;
    this.#taken.add(block);
    return Buffer.from(block, 0, bytes);
  }

  /** Gives back what `take` returned, or a part of it. A buffer from elsewhere is left to the collector. */
  give(buffer: Buffer): void {
    const block = buffer.buffer;
    if (!(block instanceof ArrayBuffer) || !this.#taken.delete(block)) return;
    this.#classOf(block.byteLength).free.push(block);
    this.#freeBytes += block.byteLength;
    while (this.#freeBytes > this.#maxFreeBytes) this.#letGo();
  }

  #classOf(size: number): SizeClass {
    let found = this.#classes.get(size);
    if (found === undefined) {
      found = { size, free: [], asked: 0 };
      this.#classes.set(size, found);
    }
    return found;
  }

  /** A consumer that catches up needs other sizes than producers do: what served one is not kept from the other. */
  #letGo(): void {
    let oldest: SizeClass | undefined;
    for (const ofSize of this.#classes.values()) {
      if (ofSize.free.length > 0 && (oldest === undefined || ofSize.asked < oldest.asked)) oldest = ofSize;
    }
    oldest!.free.pop();
    this.#freeBytes -= oldest!.size;
  }
}
