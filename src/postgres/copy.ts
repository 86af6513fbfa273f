// COPY … (FORMAT binary) encoding (manual, "COPY", section "Binary Format"), laid out as CopyData messages ready
// for the socket. Headers and small values are packed into slabs; a large value goes by reference, so a
// producer's batch is not copied between its socket and Postgres's.
import type { BufferPool } from '../runtime/buffer-pool.ts';

/** The CopyData messages and the CopyDone of one COPY. */
export interface CopyPayload {
  readonly chunks: readonly Buffer[];
  /** Says that the server has taken them; not calling it only costs their memory's reuse. */
  release(): void;
}

/** Below this a copy into the slab is cheaper than another element of the write vector. */
const byReferenceFrom = 8192;
const slabBytes = 65_536;
/** The first slab comes from Node's pool: most groups at low rates are one or two small batches. */
const firstSlabBytes = 2048;

const signature = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1'); // flags and extension length are 0

/**
 * Builds one COPY payload: for each row call `row`, then that many of `int32`, `int64`, `bytes`, in column order;
 * at the end `finish`.
 */
export class CopyEncoder {
  readonly #chunks: Buffer[] = [];
  readonly #memory: BufferPool | undefined;
  readonly #slabs: Buffer[] = [];
  #slab: Buffer = Buffer.allocUnsafe(firstSlabBytes);
  #start = 0;
  #at = 0;
  #left = 0;

  /** `memory`: where slabs come from; the collector's without it. */
  constructor(memory?: BufferPool) {
    this.#memory = memory;
    this.#message(signature.length);
    this.#copyIn(signature);
  }

  /** `bodyBytes`: the sum of the row's values, in bytes; every value adds a length of 4. */
  row(columns: number, bodyBytes: number): void {
    this.#message(2 + 4 * columns + bodyBytes);
    this.#reserve(2);
    this.#slab.writeInt16BE(columns, this.#at);
    this.#at += 2;
    this.#left = columns;
  }

  int32(value: number): void {
    this.#reserve(8);
    this.#slab.writeInt32BE(4, this.#at);
    this.#slab.writeInt32BE(value, this.#at + 4);
    this.#at += 8;
    this.#left--;
  }

  int64(value: bigint): void {
    this.#reserve(12);
    this.#slab.writeInt32BE(8, this.#at);
    this.#slab.writeBigInt64BE(value, this.#at + 4);
    this.#at += 12;
    this.#left--;
  }

  /** The concatenation of `parts`, `length` bytes in all. */
  bytes(parts: readonly Buffer[], length: number): void {
    this.#reserve(4);
    this.#slab.writeInt32BE(length, this.#at);
    this.#at += 4;
    for (const part of parts) {
      if (part.length >= byReferenceFrom) {
        this.#flush();
        this.#chunks.push(part);
      } else {
        this.#copyIn(part);
      }
    }
    this.#left--;
  }

  finish(): CopyPayload {
    if (this.#left !== 0) throw new Error(`the last row lacks ${this.#left} columns`);
    this.#message(2);
    this.#reserve(2 + 5);
    this.#slab.writeInt16BE(-1, this.#at); // trailer
    this.#slab[this.#at + 2] = 0x63; // CopyDone
    this.#slab.writeInt32BE(4, this.#at + 3);
    this.#at += 7;
    this.#flush();
    return {
      chunks: this.#chunks,
      release: () => {
        for (const slab of this.#slabs.splice(0)) this.#memory?.give(slab);
      },
    };
  }

  /** The head of a CopyData message of `length` bytes. */
  #message(length: number): void {
    if (this.#left !== 0) throw new Error(`the row before lacks ${this.#left} columns`);
    this.#reserve(5);
    this.#slab[this.#at] = 0x64;
    this.#slab.writeInt32BE(length + 4, this.#at + 1);
    this.#at += 5;
  }

  #copyIn(part: Buffer): void {
    this.#reserve(part.length);
    part.copy(this.#slab, this.#at);
    this.#at += part.length;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#slab.length) return;
    this.#flush();
    this.#slab = this.#memory?.take(slabBytes) ?? Buffer.allocUnsafe(slabBytes);
    this.#slabs.push(this.#slab);
    this.#start = 0;
    this.#at = 0;
  }

  #flush(): void {
    if (this.#at > this.#start) this.#chunks.push(this.#slab.subarray(this.#start, this.#at));
    this.#start = this.#at;
  }
}
