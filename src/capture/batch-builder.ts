// Builds the record batches of one partition straight into their bytes (format v2, uncompressed): keys and values are
// copied once, from the buffer they were converted in.
import { headerBytes, writeHeader } from '../protocol/record-batch.ts';
import { varintBytes, varlongBytes, writeVarint, writeVarlong } from '../protocol/varint.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';

/** Where a blob lies; `null` bytes are a null key or value. */
export interface Blob {
  bytes: Buffer | null;
  start: number;
  end: number;
}

/** Attributes, deltas, lengths: more than their longest forms take. */
const overheadBytes = 40;
const initialBytes = 4096;
const mostLikelyBytes = 1_048_576;

export class BatchBuilder {
  readonly #memory: BufferPool;
  #bytes: Buffer = Buffer.alloc(0);
  #at = headerBytes;
  #count = 0;
  #baseTimestamp = 0;
  #maxTimestamp = 0;
  /** The last batch's size: what the next one begins with. */
  #likelyBytes = initialBytes;

  constructor(memory: BufferPool) {
    this.#memory = memory;
  }

  get count(): number {
    return this.#count;
  }

  /** The batch as it would be now. */
  get byteLength(): number {
    return this.#count === 0 ? 0 : this.#at;
  }

  /**
   * `timestamp`: ms since the Unix epoch. `headers`: the count and the headers as they stand in a record, from
   * `encodeHeaders`.
   */
  add(timestamp: number, key: Blob, value: Blob, headers: Buffer, headersEnd = headers.length): void {
    const keyBytes = key.bytes === null ? -1 : key.end - key.start;
    const valueBytes = value.bytes === null ? -1 : value.end - value.start;
    if (this.#count === 0) {
      this.#baseTimestamp = timestamp;
      this.#maxTimestamp = timestamp;
    }
    this.#reserve(Math.max(keyBytes, 0) + Math.max(valueBytes, 0) + headersEnd + overheadBytes);
    const delta = timestamp - this.#baseTimestamp;
    let length = 1 + varlongBytes(delta) + varintBytes(this.#count) + varintBytes(keyBytes) + varintBytes(valueBytes);
    length += Math.max(keyBytes, 0) + Math.max(valueBytes, 0) + headersEnd;
    this.#varint(length);
    this.#bytes[this.#at++] = 0; // attributes
    this.#at = writeVarlong(this.#bytes, this.#at, delta);
    this.#varint(this.#count);
    this.#varint(keyBytes);
    if (key.bytes !== null) this.#copy(key.bytes, key.start, key.end);
    this.#varint(valueBytes);
    if (value.bytes !== null) this.#copy(value.bytes, value.start, value.end);
    this.#copy(headers, 0, headersEnd);
    this.#count++;
    if (timestamp > this.#maxTimestamp) this.#maxTimestamp = timestamp;
  }

  /** The batch, of at least one record, to be given back to the pool; the builder begins another. */
  finish(): Buffer {
    const batch = this.#bytes.subarray(0, this.#at);
    writeHeader(batch, {
      baseOffset: 0n,
      leaderEpoch: -1,
      attributes: 0,
      lastOffsetDelta: this.#count - 1,
      baseTimestamp: BigInt(this.#baseTimestamp),
      maxTimestamp: BigInt(this.#maxTimestamp),
      producerId: -1n,
      producerEpoch: -1,
      baseSequence: -1,
      recordCount: this.#count,
    });
    // The pool's blocks are powers of two.
    this.#likelyBytes = Math.max(initialBytes, Math.min(2 ** Math.ceil(Math.log2(batch.length)), mostLikelyBytes));
    this.#bytes = Buffer.alloc(0);
    this.#at = headerBytes;
    this.#count = 0;
    return batch;
  }

  #reserve(count: number): void {
    if (this.#at + count <= this.#bytes.length) return;
    const larger = this.#memory.take(Math.max(this.#likelyBytes, this.#bytes.length * 2, this.#at + count));
    this.#bytes.copy(larger, 0, 0, this.#count === 0 ? 0 : this.#at);
    this.#memory.give(this.#bytes);
    this.#bytes = larger;
  }

  #copy(source: Buffer, start: number, end: number): void {
    const length = end - start;
    if (length < 24) for (let i = 0; i < length; i++) this.#bytes[this.#at + i] = source[start + i]!;
    else source.copy(this.#bytes, this.#at, start, end);
    this.#at += length;
  }

  #varint(value: number): void {
    this.#at = writeVarint(this.#bytes, this.#at, value);
  }
}
