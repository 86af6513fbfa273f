// Partitions of local topics, read by the log's own reader from positions that only move on: whatever has committed, a few
// records at a time, from each partition in turn.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { decodeBatch } from '../protocol/compression.ts';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import * as batchHeader from '../protocol/record-batch.ts';
import { type LogRecord, readRecords } from '../protocol/records.ts';
import type { Log } from '../storage/log.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import type { Topic } from '../storage/topics.ts';

export interface Source {
  readonly topic: Topic;
  readonly log: PartitionLog;
  /** The next offset to read. */
  position: bigint;
  /** Records before it are in the inbox, as far as they became events. */
  stored: bigint;
  /** What the group's committed offset is. */
  committed: bigint;
}

export interface TopicReaderOptions {
  readonly log: Log;
  readonly sources: readonly Source[];
  /** What a record asks for, while its memory is there. False: it is to come again, nothing after it is wanted now. */
  take(source: Source, record: LogRecord): boolean;
  /** Offsets from the source's position to `next` are not there any more, or cannot be read for `reason`. */
  lost(source: Source, next: bigint, reason: string): void;
}

const readBytes = 512 * 1024;
/** A record batch may grow to this when it is unpacked. */
const maxUnpackedBytes = 256 * 1024 * 1024;
/** After so long others on this thread have their turn, ms. */
const sliceMs = 4;

export class TopicReader {
  readonly #options: TopicReaderOptions;
  #next = 0;

  constructor(options: TopicReaderOptions) {
    this.#options = options;
  }

  /** From the next partition that has something. False where none has. */
  async readSome(): Promise<boolean> {
    const { sources, log } = this.#options;
    for (let looked = 0; looked < sources.length; looked++) {
      const source = sources[this.#next++ % sources.length]!;
      if (!isBehind(source)) continue;
      if (source.log.deleted) throw new Error(`topic ${source.topic.name} has been deleted`);
      const { error, chunks, release } = await log.read(source.log, source.position, readBytes, true);
      if (error === ErrorCode.OFFSET_OUT_OF_RANGE) {
        this.#skip(source);
        return true;
      }
      if (error !== ErrorCode.NONE) throw new Error(`${source.topic.name}: ${errorOf(error).name}`);
      if (chunks.length === 0) continue;
      try {
        for (const chunk of chunks) if (!(await this.#take(source, chunk))) break;
      } finally {
        release();
      }
      return true;
    }
    return false;
  }

  /** Resolves when a partition has something to read, or `signal` is aborted, or `ms` have passed. */
  async wait(signal: AbortSignal, ms: number): Promise<void> {
    const { sources } = this.#options;
    await new Promise<void>(resolve => {
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        for (const { log } of sources) log.waiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal.addEventListener('abort', done);
      for (const { log } of sources) log.waiters.add(done);
      if (signal.aborted || sources.some(isBehind)) done();
    });
  }

  /** Retention was quicker, or the offset was moved to where nothing is. */
  #skip(source: Source): void {
    const { logStartOffset, highWatermark } = source.log;
    const next = source.position < logStartOffset ? logStartOffset : highWatermark;
    this.#options.lost(source, next, `offsets ${source.position} to ${next} are not in the log`);
    source.position = next;
  }

  /** False when no more is wanted. */
  async #take(source: Source, chunk: Buffer): Promise<boolean> {
    const { take, lost } = this.#options;
    let turn = performance.now();
    for (const raw of batchHeader.splitBatches(chunk)) {
      const end = batchHeader.lastOffset(raw) + 1n;
      if (end <= source.position) continue;
      if (!batchHeader.isControl(raw)) {
        let records: LogRecord[] = [];
        try {
          records =
            batchHeader.codec(raw) === 0
              ? readRecords(raw, raw.subarray(batchHeader.headerBytes, batchHeader.batchBytes(raw)))
              : await decodeBatch(raw, maxUnpackedBytes);
        } catch (error) {
          lost(source, end, `the batch cannot be read: ${(error as Error).message}`);
        }
        for (const record of records) {
          if (record.offset < source.position) continue;
          if (!take(source, record)) return false;
          source.position = record.offset + 1n;
        }
      }
      source.position = end;
      if (performance.now() - turn > sliceMs) {
        await nextTurn();
        turn = performance.now();
      }
    }
    return true;
  }
}

const isBehind = ({ log, position }: Source): boolean => position !== log.highWatermark || log.deleted;
