// Reads partitions from positions that only move on: whatever has committed, some records at a time, from each partition
// in turn. What becomes of records, and of offsets that hold none, is its user's affair.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { decodeBatch, decompress } from '../protocol/compression.ts';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import * as batchHeader from '../protocol/record-batch.ts';
import { RecordPlaces } from '../protocol/record-places.ts';
import type { LogRecord } from '../protocol/records.ts';
import type { Batches, SourcePartition } from './source.ts';

/** Where somebody is in a partition. */
export interface Cursor {
  readonly log: SourcePartition;
  /** The next offset to read. */
  position: bigint;
}

export interface PartitionReaderOptions<C extends Cursor> {
  readonly cursors: readonly C[];
  /** Asked for at once. */
  readonly readBytes: number;
  /** Takes a record of `batch`, before the position passes it. False: it is to come again, and nothing after it is wanted now. */
  take(cursor: C, record: LogRecord, batch: Buffer): boolean | Promise<boolean>;
  /** Takes records of `batch` where they lie, from number `from` on. Returns how many; `take` is asked of the next. */
  takeMany?(cursor: C, places: RecordPlaces, from: number, batch: Buffer): number;
  /** The position is about to pass to `next` without a record: the end of a batch, or a batch of none. */
  pass?(cursor: C, next: bigint): void;
  /** Records are needed for longer than they are taken: whoever holds them calls `release`. */
  holds?(release: () => void): void;
  /** The position is not in the log. Throws, or moves it. */
  outOfRange(cursor: C): void;
  /** Throws, or lets the batch be passed over. */
  unreadable(cursor: C, batch: Buffer, error: Error): void;
}

/** A record batch may grow to this when it is unpacked. */
const maxUnpackedBytes = 256 * 1024 * 1024;
/** After so long others on this thread have their turn, ms. */
const sliceMs = 4;

export class PartitionReader<C extends Cursor> {
  readonly #options: PartitionReaderOptions<C>;
  readonly #places = new RecordPlaces();
  #next = 0;
  #wake: () => void = () => {};

  constructor(options: PartitionReaderOptions<C>) {
    this.#options = options;
  }

  /** From the next partition that has something. False where none has. */
  async readSome(): Promise<boolean> {
    const { cursors, readBytes, holds, outOfRange } = this.#options;
    for (let looked = 0; looked < cursors.length; looked++) {
      const cursor = cursors[this.#next++ % cursors.length]!;
      const { log } = cursor;
      if (!log.isReadyAt(cursor.position)) continue;
      if (log.deleted) throw new Error(`topic ${log.topic.name} has been deleted`);
      const batches = await log.read(cursor.position, readBytes);
      if (batches.error === ErrorCode.OFFSET_OUT_OF_RANGE) {
        outOfRange(cursor);
        return true;
      }
      if (batches.error !== ErrorCode.NONE) throw new Error(`${nameOf(cursor)}: ${errorOf(batches.error).name}`);
      if (batches.chunks.length === 0) continue;
      if (holds) {
        holds(batches.release);
        await this.#take(cursor, batches);
      } else {
        await this.#take(cursor, batches).finally(batches.release);
      }
      return true;
    }
    return false;
  }

  /** Resolves when a partition may have something to read, at `wake`, when `signal` is aborted, or when `ms` have passed. */
  async wait(ms: number, signal?: AbortSignal): Promise<void> {
    const { cursors } = this.#options;
    await new Promise<void>(resolve => {
      let timer: NodeJS.Timeout | undefined;
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        for (const { log } of cursors) log.waiters.delete(done);
        this.#wake = () => {};
        resolve();
      };
      this.#wake = done;
      signal?.addEventListener('abort', done);
      for (const { log } of cursors) log.waiters.add(done);
      if (Number.isFinite(ms)) timer = setTimeout(done, Math.max(0, ms));
      if (signal?.aborted || cursors.some(({ log, position }) => log.isReadyAt(position))) done();
    });
  }

  /** Ends the wait there is. */
  wake(): void {
    this.#wake();
  }

  async #take(cursor: C, { chunks, aborted }: Batches): Promise<void> {
    const { pass } = this.#options;
    let turn = performance.now();
    for (const chunk of chunks) {
      for (const raw of batchHeader.splitBatches(chunk)) {
        const end = batchHeader.lastOffset(raw) + 1n;
        if (end <= cursor.position) continue;
        if (!batchHeader.isControl(raw) && !aborted?.has(batchHeader.baseOffset(raw))) {
          if ((await this.#find(cursor, raw)) && !(await this.#takeAll(cursor, raw))) return;
        }
        if (end > cursor.position) {
          pass?.(cursor, end);
          cursor.position = end;
        }
        if (performance.now() - turn > sliceMs) {
          await nextTurn();
          turn = performance.now();
        }
      }
    }
  }

  /** The records that have been found. False where one is to come again. */
  async #takeAll(cursor: C, raw: Buffer): Promise<boolean> {
    const { take, takeMany } = this.#options;
    const places = this.#places;
    for (let i = 0; i < places.count; i++) {
      if (places.offset(i) < cursor.position) continue;
      const many = places.ascending ? (takeMany?.(cursor, places, i, raw) ?? 0) : 0;
      if (many > 0) {
        i += many;
        cursor.position = places.offset(i - 1) + 1n;
        if (i === places.count) break;
      }
      const record = places.record(i);
      const taken = take(cursor, record, raw);
      if (taken !== true && !(await taken)) return false;
      cursor.position = record.offset + 1n;
    }
    return true;
  }

  /** False where the batch is passed over. */
  async #find(cursor: C, raw: Buffer): Promise<boolean> {
    try {
      const section = raw.subarray(batchHeader.headerBytes, batchHeader.batchBytes(raw));
      this.#places.read(raw, await decompress(section, batchHeader.codec(raw), maxUnpackedBytes));
      return true;
    } catch (error) {
      this.#options.unreadable(cursor, raw, error as Error);
      return false;
    }
  }
}

/** Rejects with CompressionError or WireError. */
export const recordsOf = (batch: Buffer): Promise<LogRecord[]> => decodeBatch(batch, maxUnpackedBytes);

export const nameOf = ({ log }: Cursor): string => `${log.topic.name}-${log.partition}`;
