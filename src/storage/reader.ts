// Reads the log behind the tail cache: whole rows in bulk, binary, on a few connections of their own, so that a
// consumer catching up does not wait behind the writers.

import { type Result, type Row, Session } from '../postgres/session.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';
import { codeOf } from '../runtime/errors.ts';
import { tableOf } from './segments.ts';

/** Rows a single read asks for at the most; with unbatched producers a row may be a hundred bytes. */
const maxRows = 2000;
const firstRows = 8;

/** SQLSTATEs: no such table; or no such prepared statement, when the same was asked just before and found no table. */
const gone: readonly string[] = ['42P01', '26000'];

export interface StoredRow {
  readonly baseOffset: bigint;
  readonly lastOffset: bigint;
  readonly records: Buffer;
}

export interface StoredRows {
  readonly rows: readonly StoredRow[];
  /** Says that the rows' bytes are needed no more. */
  release(): void;
}

export class Reader {
  readonly #databaseUrl: string;
  readonly #memory: BufferPool;
  readonly #sessions: (Promise<Session> | undefined)[];
  #turn = 0;

  constructor(databaseUrl: string, connections: number, memory: BufferPool) {
    this.#databaseUrl = databaseUrl;
    this.#memory = memory;
    this.#sessions = new Array(connections).fill(undefined);
  }

  /**
   * The rows of a segment from the one that holds `offset` on, until `maxBytes` of batches are reached (the row that
   * passes the bound is included). `likelyRowBytes`, the mean of the rows read before, sets how many rows are looked
   * at: without it each read would visit 2,000 (5 ms instead of 1 with 7 KiB rows). The running sum keeps a wrong guess
   * from reading more than was asked for: octet_length of an EXTERNAL value looks at its toast pointer only.
   */
  async rows(
    segmentId: number,
    partition: number,
    offset: bigint,
    maxBytes: number,
    likelyRowBytes: number | undefined,
  ): Promise<StoredRows> {
    const likely = likelyRowBytes === undefined ? firstRows : Math.ceil((1.25 * maxBytes) / likelyRowBytes) + 1;
    const { rows, release } = await this.#query(
      `SELECT base_offset, last_offset, records FROM (
         SELECT base_offset, last_offset, records,
                sum(octet_length(records)) OVER (ORDER BY last_offset ROWS UNBOUNDED PRECEDING) - octet_length(records) AS before
         FROM (SELECT base_offset, last_offset, records FROM ${tableOf(segmentId)}
               WHERE partition_id = $1 AND last_offset >= $2 ORDER BY last_offset LIMIT $4) found) counted
       WHERE before < $3`,
      [partition, offset, maxBytes, Math.min(likely, maxRows)],
    );
    return { rows: rows.map(storedRow), release };
  }

  /** The first row from `offset` on with a batch of `timestamp` or later. */
  async firstSince(
    segmentId: number,
    partition: number,
    offset: bigint,
    timestamp: bigint,
  ): Promise<StoredRow | undefined> {
    const { rows } = await this.#query(
      `SELECT base_offset, last_offset, records FROM ${tableOf(segmentId)}
       WHERE partition_id = $1 AND last_offset >= $2 AND max_timestamp >= $3 ORDER BY last_offset LIMIT 1`,
      [partition, offset, timestamp],
    );
    return rows[0] && storedRow(rows[0]);
  }

  /** The row that `offset` cuts, if it cuts one, and the first of those with the newest timestamp from there to `end`. */
  async newest(segmentId: number, partition: number, offset: bigint, end: bigint): Promise<StoredRow[]> {
    const { rows } = await this.#query(
      `(SELECT base_offset, last_offset, records FROM ${tableOf(segmentId)}
        WHERE partition_id = $1 AND last_offset >= $2 AND base_offset < $2 ORDER BY last_offset LIMIT 1)
       UNION ALL
       (SELECT base_offset, last_offset, records FROM ${tableOf(segmentId)}
        WHERE partition_id = $1 AND base_offset >= $2 AND last_offset >= $2 AND last_offset < $3
        ORDER BY max_timestamp DESC, last_offset LIMIT 1)`,
      [partition, offset, end],
    );
    return rows.map(storedRow);
  }

  /** A segment that has been dropped, by retention or with its topic, holds nothing. */
  async #query(sql: string, parameters: readonly (string | number | bigint)[]): Promise<Result> {
    const session = await this.#session();
    try {
      return await session.query(sql, parameters);
    } catch (error) {
      if (!gone.includes(codeOf(error) ?? '')) throw error;
      return { rows: [], release() {} };
    }
  }

  /** Sessions are opened when needed and again after a loss, and take turns. */
  async #session(): Promise<Session> {
    const turn = this.#turn++ % this.#sessions.length;
    const opening = this.#sessions[turn];
    if (opening) {
      const session = await opening.catch(() => undefined);
      if (session && !session.lost) return session;
      if (this.#sessions[turn] !== opening) return this.#sessions[turn]!;
    }
    this.#sessions[turn] = Session.open(this.#databaseUrl, {
      applicationName: 'millrace reader',
      memory: this.#memory,
    });
    return this.#sessions[turn];
  }

  async end(): Promise<void> {
    for (const opening of this.#sessions.splice(0)) {
      const session = await opening?.catch(() => undefined);
      await session?.end();
    }
  }
}

function storedRow(row: Row): StoredRow {
  return { baseOffset: row[0]!.readBigInt64BE(), lastOffset: row[1]!.readBigInt64BE(), records: row[2]! };
}
