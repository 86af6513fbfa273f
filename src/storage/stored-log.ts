// The log behind the tail cache, as its leader reads it: which segments hold what is asked for, and the rows of them
// (reader.ts).
import type { Pool } from '../postgres/pool.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { baseOffset } from '../protocol/record-batch.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';
import type { PartitionLog } from './partition-log.ts';
import { ReadAhead } from './read-ahead.ts';
import { Reader, type StoredRow, type StoredRows } from './reader.ts';
import type { Segments } from './segments.ts';
import { endsWith, sliceRun } from './tail-cache.ts';

export interface ReadResult {
  readonly error: number;
  /** Each one or more whole batches, as they are stored. */
  readonly chunks: readonly Buffer[];
  readonly bytes: number;
  /** Says that the bytes have been sent: their memory is used again. Not calling it only costs that. */
  release(): void;
}

export interface StoredLogOptions {
  readonly databaseUrl: string;
  readonly pool: Pool;
  readonly segments: Segments;
  /** Connections. */
  readonly readers: number;
  readonly memory: BufferPool;
}

/** What is read ahead for all consumers together: more at a time than there are connections would only wait there. */
const aheadBytesOfReader = 2 * 1024 * 1024;
/** A consumer that has not asked for what was read for it by then does something else. */
const aheadPatienceMs = 1000;

export class StoredLog {
  readonly #pool: Pool;
  readonly #segments: Segments;
  readonly #reader: Reader;
  readonly #ahead: ReadAhead;

  constructor({ databaseUrl, pool, segments, readers, memory }: StoredLogOptions) {
    this.#pool = pool;
    this.#segments = segments;
    this.#reader = new Reader(databaseUrl, readers, memory);
    this.#ahead = new ReadAhead({ maxBytes: readers * aheadBytesOfReader, patienceMs: aheadPatienceMs });
  }

  async end(): Promise<void> {
    this.#ahead.clear();
    await this.#reader.end();
  }

  /**
   * Batches from the one that holds `offset` on, below the high watermark, of `maxBytes` in all; where `atLeastOne`, the
   * first even if it is larger. Undefined when nothing is found.
   */
  async read(
    partition: PartitionLog,
    offset: bigint,
    maxBytes: number,
    atLeastOne: boolean,
  ): Promise<ReadResult | undefined> {
    if (partition.deleted) return undefined;
    const stored =
      (await this.#ahead.take(partition, offset)) ?? (await this.rows(partition, offset, Math.max(maxBytes, 1)));
    if (!stored) return undefined;
    const chunks: Buffer[] = [];
    let bytes = 0;
    let next = offset;
    for (const row of stored.rows) {
      if (row.baseOffset >= partition.highWatermark) break;
      const chunk = sliceRun(row.records, bytes === 0 ? offset : 0n, maxBytes - bytes, atLeastOne && bytes === 0);
      if (chunk.length === 0) break;
      chunks.push(chunk);
      bytes += chunk.length;
      if (!endsWith(row.records, chunk)) {
        next = baseOffset(row.records, chunk.byteOffset + chunk.length - row.records.byteOffset);
        break;
      }
      next = row.lastOffset + 1n;
    }
    if (bytes > 0) this.#readAhead(partition, next, maxBytes);
    return { error: ErrorCode.NONE, chunks, bytes, release: stored.release };
  }

  /** For the request that comes next, if there is anything that the tail cache does not hold. */
  #readAhead(partition: PartitionLog, offset: bigint, maxBytes: number): void {
    const { highWatermark, tail } = partition;
    if (offset >= highWatermark || (tail.start !== undefined && offset >= tail.start)) return;
    this.#ahead.begin(partition, offset, maxBytes, async bytes => {
      const stored = await this.rows(partition, offset, bytes);
      // What was not flushed when this was asked for may be taken back before it is shown to anybody.
      const rows = stored?.rows.filter(row => row.lastOffset < highWatermark);
      return stored && rows && rows.length > 0 ? { rows, release: stored.release } : undefined;
    });
  }

  /** The rows from the one that holds `offset` on, until `maxBytes` are reached; undefined when nothing is found. */
  async rows(partition: PartitionLog, offset: bigint, maxBytes: number): Promise<StoredRows | undefined> {
    for (const segmentId of await this.#segmentsFrom(partition, offset)) {
      const stored = await this.#reader.rows(
        segmentId,
        partition.partition,
        offset,
        maxBytes,
        partition.likelyRowBytes,
      );
      const { rows } = stored;
      if (rows.length === 0) continue;
      partition.likelyRowBytes = rows.reduce((sum, row) => sum + row.records.length, 0) / rows.length;
      return stored;
    }
    // What was known may be of a segment that has been dropped.
    partition.located = undefined;
    partition.unsealedFrom = undefined;
    return undefined;
  }

  /** The segments that may hold `offset` or what follows it, in order. */
  async #segmentsFrom(partition: PartitionLog, offset: bigint): Promise<number[]> {
    const { located } = partition;
    if (located && offset >= located.base && offset < located.next) return [located.segmentId];
    const unsealed = this.#unsealedIds(partition);
    const { sealings } = this.#segments;
    if (partition.unsealedFrom?.sealings === sealings && offset >= partition.unsealedFrom.offset) return unsealed;
    const sealed = await this.#segments.locate(partition.topicId, partition.partition, offset);
    if (sealed) {
      partition.located = sealed;
      return [sealed.segmentId];
    }
    partition.unsealedFrom = { offset, sealings };
    return unsealed;
  }

  /** To be asked for before the sealed ones are: a segment sealed in between is then in both lists, never in neither. */
  #unsealedIds(partition: PartitionLog): number[] {
    return this.#segments.unsealed(partition.topicId).map(segment => segment.id);
  }

  /** The first row at or after `from` with a batch of `timestamp` or later; it may lie before offset order's own. */
  async firstRowSince(
    partition: PartitionLog,
    timestamp: bigint,
    from: bigint = partition.logStartOffset,
  ): Promise<StoredRow | undefined> {
    for (const segmentId of await this.#segmentsSince(partition, timestamp)) {
      const row = await this.#reader.firstSince(segmentId, partition.partition, from, timestamp);
      if (row) return row.baseOffset < partition.highWatermark ? row : undefined;
    }
    return undefined;
  }

  /**
   * The rows that may hold the record with the newest timestamp: in each segment that may have it the row that the log
   * start cuts, whose own newest timestamp may be of a record before it, and the newest of the rows after.
   */
  async newestRows(partition: PartitionLog): Promise<StoredRow[]> {
    const unsealed = this.#unsealedIds(partition);
    const { logStartOffset, highWatermark } = partition;
    // Of the sealed segments the newest that lies wholly past the log start, and the one that the log start cuts.
    const { rows } = await this.#pool.query<{ segment_id: number }>(
      `WITH found AS (
         SELECT s.segment_id, p.base_offset, p.max_timestamp
         FROM kafka.segments s JOIN kafka.segment_partitions p USING (segment_id)
         WHERE s.topic_id = $1 AND s.state = 'sealed' AND p.partition_id = $2 AND p.next_offset > $3)
       (SELECT segment_id FROM found WHERE base_offset < $3)
       UNION ALL
       (SELECT segment_id FROM found WHERE base_offset >= $3 ORDER BY max_timestamp DESC, segment_id LIMIT 1)`,
      [partition.topicId, partition.partition, logStartOffset],
    );
    const found: StoredRow[] = [];
    for (const segmentId of new Set([...rows.map(row => row.segment_id), ...unsealed])) {
      found.push(...(await this.#reader.newest(segmentId, partition.partition, logStartOffset, highWatermark)));
    }
    return found.sort((one, other) => Number(one.baseOffset - other.baseOffset));
  }

  async #segmentsSince(partition: PartitionLog, timestamp: bigint): Promise<Iterable<number>> {
    const unsealed = this.#unsealedIds(partition);
    const { rows } = await this.#pool.query<{ segment_id: number }>(
      `SELECT s.segment_id FROM kafka.segments s JOIN kafka.segment_partitions p USING (segment_id)
       WHERE s.topic_id = $1 AND s.state = 'sealed' AND p.partition_id = $2 AND p.max_timestamp >= $3 AND p.next_offset > $4
       ORDER BY s.segment_id`,
      [partition.topicId, partition.partition, timestamp, partition.logStartOffset],
    );
    return new Set([...rows.map(row => row.segment_id), ...unsealed]);
  }

  /** The start may have moved further than is known here: when the answer to the COMMIT that moved it was lost. */
  async rereadStart(partition: PartitionLog): Promise<void> {
    const { rows } = await this.#pool.query<{ start: bigint }>(
      'SELECT log_start_offset AS start FROM kafka.partitions WHERE topic_id = $1 AND partition_id = $2',
      [partition.topicId, partition.partition],
    );
    if (rows[0]) partition.moveStart(rows[0].start);
  }
}
