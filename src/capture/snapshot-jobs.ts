// Where the snapshots of a capture's tables stand, in kafka.capture_snapshots.
import { formatLsn, type Lsn, parseLsn } from '../postgres/lsn.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import type { Target } from './outlet.ts';
import { partitionOf } from './partitioner.ts';
import { isAfter, type Position } from './position.ts';

/** The values of a primary key's columns, as Postgres prints them. */
export type KeyValues = readonly string[];

/**
 * Rows up to a key that may be in the log already, in some partitions: they are read again for the others. A crash
 * between the appends of two partitions leaves it so.
 */
export interface Range {
  /** null: to the table's end. */
  readonly until: KeyValues | null;
  /** Partitions that have it, and how many the topic had then, which tells which keys those are. */
  readonly in: readonly (readonly [partition: number, count: number])[];
  /** Where in the stream it has been or is being written; its partitions are told by their positions. */
  readonly at?: Position | undefined;
}

export interface Job {
  readonly schema: string;
  readonly name: string;
  readonly kind: 'initial' | 'incremental';
  done: boolean;
  relationId: number;
  keyColumns: readonly string[];
  after: KeyValues | null;
  ranges: readonly Range[];
  rows: number;
  estimatedRows: number | null;
}

export function hasRow(range: Range, key: Buffer | null): boolean {
  return range.in.some(([partition, count]) => partitionOf(key, 0, key?.length ?? 0, count) === partition);
}

/** The same with what `target`'s stored positions tell: they hold for the moment they were read only. */
export function settle(range: Range, target: Target | undefined): Range {
  const { at } = range;
  if (at === undefined) return range;
  const more = (target?.stored ?? []).flatMap((stored, partition): Range['in'] =>
    stored === undefined || isAfter(at.commitLsn, at.ordinal, stored) ? [] : [[partition, stored.partitionCount]],
  );
  return { until: range.until, in: [...range.in, ...more] };
}

interface StoredRange {
  readonly until: KeyValues | null;
  readonly in: Range['in'];
  readonly lsn?: string;
  readonly ordinal?: number;
}

export class SnapshotJobs {
  readonly #lane: WriteLane;
  readonly #captureId: number;

  constructor(lane: WriteLane, captureId: number) {
    this.#lane = lane;
    this.#captureId = captureId;
  }

  /** Notes the tables that have never been read. */
  async begin(tables: readonly { readonly schema: string; readonly name: string }[]): Promise<void> {
    if (tables.length === 0) return;
    await this.#lane.transaction(client =>
      client.query(
        `INSERT INTO kafka.capture_snapshots (capture_id, schema_name, table_name, kind)
         SELECT $1, t.schema, t.name, 'initial' FROM unnest($2::text[], $3::text[]) t (schema, name) ON CONFLICT DO NOTHING`,
        [this.#captureId, tables.map(t => t.schema), tables.map(t => t.name)],
      ),
    );
  }

  /** Has a table read again from its beginning. */
  async again(table: { readonly schema: string; readonly name: string }): Promise<void> {
    await this.#lane.transaction(client =>
      client.query(
        `INSERT INTO kafka.capture_snapshots (capture_id, schema_name, table_name, kind) VALUES ($1, $2, $3, 'incremental')
         ON CONFLICT (capture_id, schema_name, table_name) DO UPDATE
         SET kind = 'incremental', done = false, relation_id = 0, key_columns = '{}', after_key = NULL, ranges = '[]',
             row_count = 0, estimated_rows = NULL, started_at = now(), finished_at = NULL`,
        [this.#captureId, table.schema, table.name],
      ),
    );
  }

  async load(): Promise<Job[]> {
    const { rows } = await this.#lane.transaction(client =>
      client.query<{
        schema_name: string;
        table_name: string;
        kind: Job['kind'];
        done: boolean;
        relation_id: string;
        key_columns: string[];
        after_key: string[] | null;
        ranges: StoredRange[];
        row_count: bigint;
        estimated_rows: bigint | null;
      }>(
        `SELECT schema_name, table_name, kind, done, relation_id::text, key_columns, after_key, ranges, row_count, estimated_rows
         FROM kafka.capture_snapshots WHERE capture_id = $1 ORDER BY started_at, schema_name, table_name`,
        [this.#captureId],
      ),
    );
    return rows.map(row => ({
      schema: row.schema_name,
      name: row.table_name,
      kind: row.kind,
      done: row.done,
      relationId: Number(row.relation_id),
      keyColumns: row.key_columns,
      after: row.after_key,
      ranges: row.ranges.map(({ until, in: has, lsn, ordinal }) => ({
        until,
        in: has,
        ...(lsn === undefined ? {} : { at: { commitLsn: parseLsn(lsn), ordinal: ordinal ?? 0 } }),
      })),
      rows: Number(row.row_count),
      estimatedRows: row.estimated_rows === null ? null : Number(row.estimated_rows),
    }));
  }

  async save(job: Job): Promise<void> {
    const ranges = job.ranges.map(
      ({ until, in: has, at }): StoredRange => ({
        until,
        in: has,
        ...(at === undefined ? {} : { lsn: formatLsn(at.commitLsn as Lsn), ordinal: at.ordinal }),
      }),
    );
    await this.#lane.transaction(client =>
      client.query(
        `UPDATE kafka.capture_snapshots SET done = $4, relation_id = $5, key_columns = $6, after_key = $7, ranges = $8,
           row_count = $9, estimated_rows = $10, finished_at = CASE WHEN $4 THEN now() END
         WHERE capture_id = $1 AND schema_name = $2 AND table_name = $3`,
        [
          this.#captureId,
          job.schema,
          job.name,
          job.done,
          job.relationId,
          job.keyColumns,
          job.after === null ? null : JSON.stringify(job.after),
          JSON.stringify(ranges),
          job.rows,
          job.estimatedRows,
        ],
      ),
    );
  }
}
