// Cuts a byte stream into frames, each behind its four-byte size. A frame is one Buffer of exactly its own size,
// filled as chunks arrive: one copy, and no socket slab is kept alive by it. A size is only a claim, so memory is
// taken at most 4 KiB, then at most as much again as has arrived, ahead of the bytes. Owned by one connection.
import { WireError } from './wire.ts';

const aheadBytes = 4 * 1024;
/** Frames that have come to this size say what they want beyond it. */
const largeBytes = 64 * 1024;
const stepBytes = 1024 * 1024;
const sizeBytes = 4;

/** Where memory for frames comes from. */
export interface FrameMemory {
  take(bytes: number): Buffer;
  give(buffer: Buffer): void;
}

export interface FrameOptions {
  readonly maxBytes: number;
  /**
   * Told of every allocation before it is made. What was reserved for a frame adds up to its length when the frame is
   * delivered, and is then the receiver's to give back; `reserved` is what an unfinished frame still holds.
   */
  readonly reserve?: (bytes: number) => void;
  /** A delivered frame is the receiver's to give back; without this, frames are left to the collector. */
  readonly memory?: FrameMemory;
}

const collected: FrameMemory = {
  take: bytes => (bytes < 4096 ? Buffer.allocUnsafe(bytes) : Buffer.allocUnsafeSlow(bytes)),
  give: () => {},
};

export class FrameReader {
  readonly #maxBytes: number;
  readonly #reserve: (bytes: number) => void;
  readonly #memory: FrameMemory;
  readonly #size = Buffer.alloc(sizeBytes);
  #sizeFilled = 0;
  /** The length of the frame being filled; -1 while its size is being read. */
  #length = -1;
  #frame: Buffer = this.#size;
  #filled = 0;

  constructor({ maxBytes, reserve = () => {}, memory = collected }: FrameOptions) {
    this.#maxBytes = maxBytes;
    this.#reserve = reserve;
    this.#memory = memory;
  }

  /** Bytes reserved for a frame that has not been delivered. */
  get reserved(): number {
    return this.#length < 0 ? 0 : this.#frame.length;
  }

  /** What an unfinished frame of 64 KiB or more will reserve next: up to 1 MiB, then as much again as it has. */
  get wanted(): number {
    const held = this.#frame.length;
    if (this.#length < 0 || held < largeBytes) return 0;
    return Math.min(this.#length, Math.max(2 * held, stepBytes)) - held;
  }

  /**
   * Adds the frames that `chunk` completes, sizes cut off, to `frames`. Throws WireError, after which the stream cannot
   * be followed; those before are in `frames`.
   */
  push(chunk: Buffer, frames: Buffer[] = []): Buffer[] {
    let at = 0;
    while (at < chunk.length) {
      if (this.#length < 0) {
        at = this.#readSize(chunk, at);
        if (this.#length < 0) break;
      }
      at = this.#fill(chunk, at);
      if (this.#filled === this.#length) {
        frames.push(this.#frame);
        this.#length = -1;
      }
    }
    return frames;
  }

  #readSize(chunk: Buffer, start: number): number {
    let at = start;
    if (this.#sizeFilled === 0 && chunk.length - at >= sizeBytes) {
      this.#begin(chunk.readInt32BE(at), chunk.length - at - sizeBytes);
      return at + sizeBytes;
    }
    while (at < chunk.length && this.#sizeFilled < sizeBytes) this.#size[this.#sizeFilled++] = chunk[at++]!;
    if (this.#sizeFilled === sizeBytes) {
      this.#sizeFilled = 0;
      this.#begin(this.#size.readInt32BE(0), chunk.length - at);
    }
    return at;
  }

  #begin(length: number, arrived: number): void {
    // Every frame holds at least a correlation id, so an empty one is malformed too.
    if (length <= 0 || length > this.#maxBytes) {
      throw new WireError(`frame of ${length} bytes, allowed are 1 to ${this.#maxBytes}`);
    }
    this.#filled = 0;
    const first = Math.min(length, Math.max(aheadBytes, arrived));
    this.#reserve(first);
    this.#length = length;
    this.#frame = this.#memory.take(first);
  }

  #fill(chunk: Buffer, at: number): number {
    const count = Math.min(this.#length - this.#filled, chunk.length - at);
    if (this.#filled + count > this.#frame.length) this.#grow(this.#filled + count);
    chunk.copy(this.#frame, this.#filled, at, at + count);
    this.#filled += count;
    return at + count;
  }

  #grow(needed: number): void {
    const size = Math.min(this.#length, Math.max(this.#frame.length * 2, needed));
    this.#reserve(size - this.#frame.length);
    const next = this.#memory.take(size);
    this.#frame.copy(next, 0, 0, this.#filled);
    this.#memory.give(this.#frame);
    this.#frame = next;
  }
}
