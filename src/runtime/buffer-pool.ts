// Blocks of memory for requests, for rows read and for the tail cache, used again and again. Without it every
// megabyte that passes through is a new ArrayBuffer, and V8 answers external memory with full collections: at
// 130 MB/s they took more of the process's time than everything else together (4.1 s of 7.5), and garbage that was
// waiting for the next one half of its resident memory.
//
// Giving back is the holder's promise that nobody reads the bytes any more. Never giving back is safe: the block is
// then collected like any buffer.
const smallestBlock = 65_536;
const largestBlock = 2 * 1024 * 1024;

export class BufferPool {
  readonly #maxFreeBytes: number;
  readonly #free = new Map<number, ArrayBuffer[]>();
  /** Blocks that are taken: giving back twice, or what was never taken, must not put a block in two hands. */
  readonly #taken = new WeakSet<ArrayBufferLike>();
  #freeBytes = 0;

  /** `maxFreeBytes`: how much may lie unused before a block that is given back is let go. */
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
    const size = Math.max(smallestBlock, 2 ** Math.ceil(Math.log2(bytes)));
    let block = this.#free.get(size)?.pop();
    if (block === undefined) block = new ArrayBuffer(size);
    else this.#freeBytes -= size;
    this.#taken.add(block);
    return Buffer.from(block, 0, bytes);
  }

  /** Gives back what `take` returned, or a part of it. A buffer from elsewhere is left to the collector. */
  give(buffer: Buffer): void {
    const block = buffer.buffer;
    if (!(block instanceof ArrayBuffer) || !this.#taken.delete(block)) return;
    const size = block.byteLength;
    if (this.#freeBytes + size > this.#maxFreeBytes) return;
    const free = this.#free.get(size);
    if (free) free.push(block);
    else this.#free.set(size, [block]);
    this.#freeBytes += size;
  }
}
