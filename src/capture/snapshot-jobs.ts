// Where the snapshots of a capture's tables stand, in kafka.capture_snapshots, and how far each piece of a table has
// come, in kafka.capture_snapshot_pieces: sessions that read one table at the same time write different rows.
import type { ClientBase } from 'pg';
import { formatLsn, type Lsn, parseLsn } from '../postgres/lsn.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import type { TableName } from './definition.ts';
import type { Target } from './outlet.ts';
import { partitionOf } from './partitioner.ts';
import { isAfter, type Position } from './position.ts';

/** A place in the order in which a table is read: values of its key as Postgres prints them, or a ctid. */
export type Place = readonly string[];

/**
 * Rows up to a place that may be in the log already, in some partitions: they are read again for the others. A crash
 * between the appends of two partitions leaves it so.
 */
export interface Range {
  /** null: to the table's end. */
  readonly until: Place | null;
  /** Partitions that have it, and how many the topic had then, which tells which keys those are. */
  readonly in: readonly (readonly [partition: number, count: number])[];
  /** Where in the stream it has been or is being written; its partitions are told by their positions. */
  readonly at?: Position | undefined;
}

/** A part of a table that one session reads: rows after `after`, up to and with `until`. */
export interface Piece {
  readonly number: number;
  /** The table or partition whose ctids the places are, and its file; 0 where they are keys. */
  readonly leafId: number;
  readonly filenode: number;
  readonly until: Place | null;
  after: Place | null;
  ranges: readonly Range[];
  rows: number;
  bytes: number;
  done: boolean;
}

export type NewPiece = Pick<Piece, 'leafId' | 'filenode' | 'after' | 'until'>;

/** Where the stream of a table takes over from its reading (snapshot-base.ts). */
export interface Base {
  /** As Postgres prints a pg_snapshot; null: rows that are streamed are read as well. */
  readonly snapshot: string | null;
  readonly lsn: Lsn;
}

export interface Job extends TableName {
  readonly kind: 'initial' | 'incremental';
  done: boolean;
  relationId: number;
  /** What places are the values of: columns, or ctid. */
  keyColumns: readonly string[];
  base: Base | null;
  /** None until it has been looked at, and when it is done. */
  pieces: Piece[];
  /** Of a job that is done. */
  rows: number;
  bytes: number;
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
  readonly until: Place | null;
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
  async begin(tables: readonly TableName[]): Promise<void> {
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
  async again(table: TableName, kind: Job['kind']): Promise<void> {
    await this.#lane.transaction(async client => {
      await client.query(
        `INSERT INTO kafka.capture_snapshots (capture_id, schema_name, table_name, kind) VALUES ($1, $2, $3, $4)
         ON CONFLICT (capture_id, schema_name, table_name) DO UPDATE
         SET kind = excluded.kind, done = false, relation_id = 0, key_columns = '{}', base = NULL, row_count = 0,
             byte_count = 0, estimated_rows = NULL, started_at = now(), finished_at = NULL`,
        [this.#captureId, table.schema, table.name, kind],
      );
      await client.query(deletePieces, [this.#captureId, table.schema, table.name]);
    });
  }

  async load(): Promise<Job[]> {
    const { jobs, pieces } = await this.#lane.transaction(async client => ({
      jobs: await client.query<JobRow>(
        `SELECT schema_name, table_name, kind, done, relation_id::text, key_columns, base, row_count, byte_count, estimated_rows
         FROM kafka.capture_snapshots WHERE capture_id = $1 ORDER BY started_at, schema_name, table_name`,
        [this.#captureId],
      ),
      pieces: await client.query<PieceRow>(
        `SELECT schema_name, table_name, piece, leaf_id::text, filenode::text, after_key, until_key, ranges, row_count, byte_count, done
         FROM kafka.capture_snapshot_pieces WHERE capture_id = $1 ORDER BY piece`,
        [this.#captureId],
      ),
    }));
    return jobs.rows.map(row => ({
      schema: row.schema_name,
      name: row.table_name,
      kind: row.kind,
      done: row.done,
      relationId: Number(row.relation_id),
      keyColumns: row.key_columns,
      base: row.base && { snapshot: row.base.snapshot, lsn: parseLsn(row.base.lsn) },
      pieces: pieces.rows
        .filter(piece => piece.schema_name === row.schema_name && piece.table_name === row.table_name)
        .map(readPiece),
      rows: Number(row.row_count),
      bytes: Number(row.byte_count),
      estimatedRows: row.estimated_rows === null ? null : Number(row.estimated_rows),
    }));
  }

  /** All but how far its pieces have come, which are no more when it is done. */
  async save(job: Job): Promise<void> {
    await this.#lane.transaction(async client => {
      await this.#update(client, job);
      if (job.done) await client.query(deletePieces, this.#key(job));
    });
  }

  /** Cuts a table anew; none: it is to be looked at again. */
  async cut(job: Job, pieces: readonly NewPiece[]): Promise<void> {
    job.pieces = pieces.map((piece, number) => ({ ...piece, number, ranges: [], rows: 0, bytes: 0, done: false }));
    await this.#lane.transaction(async client => {
      await this.#update(client, job);
      await client.query(deletePieces, this.#key(job));
      await client.query(
        `INSERT INTO kafka.capture_snapshot_pieces (capture_id, schema_name, table_name, piece, leaf_id, filenode, after_key, until_key)
         SELECT $1, $2, $3, p.number, p."leafId", p.filenode, p.after, p.until
         FROM jsonb_to_recordset($4) AS p (number int, "leafId" oid, filenode oid, after jsonb, until jsonb)`,
        [...this.#key(job), JSON.stringify(job.pieces)],
      );
    });
  }

  async savePiece(job: Job, piece: Piece): Promise<void> {
    const ranges = piece.ranges.map(
      ({ until, in: has, at }): StoredRange => ({
        until,
        in: has,
        ...(at === undefined ? {} : { lsn: formatLsn(at.commitLsn as Lsn), ordinal: at.ordinal }),
      }),
    );
    await this.#lane.transaction(client =>
      client.query(
        `UPDATE kafka.capture_snapshot_pieces SET after_key = $5, ranges = $6, row_count = $7, byte_count = $8, done = $9
         WHERE capture_id = $1 AND schema_name = $2 AND table_name = $3 AND piece = $4`,
        [
          ...this.#key(job),
          piece.number,
          piece.after === null ? null : JSON.stringify(piece.after),
          JSON.stringify(ranges),
          piece.rows,
          piece.bytes,
          piece.done,
        ],
      ),
    );
  }

  async #update(client: ClientBase, job: Job): Promise<void> {
    await client.query(
      `UPDATE kafka.capture_snapshots SET done = $4, relation_id = $5, key_columns = $6, base = $7,
         row_count = $8, byte_count = $9, estimated_rows = $10, finished_at = CASE WHEN $4 THEN now() END
       WHERE capture_id = $1 AND schema_name = $2 AND table_name = $3`,
      [
        ...this.#key(job),
        job.done,
        job.relationId,
        job.keyColumns,
        job.base && JSON.stringify({ snapshot: job.base.snapshot, lsn: formatLsn(job.base.lsn) }),
        job.rows,
        job.bytes,
        job.estimatedRows,
      ],
    );
  }

  #key({ schema, name }: TableName): [number, string, string] {
    return [this.#captureId, schema, name];
  }
}

const deletePieces =
  'DELETE FROM kafka.capture_snapshot_pieces WHERE capture_id = $1 AND schema_name = $2 AND table_name = $3';

interface JobRow {
  readonly schema_name: string;
  readonly table_name: string;
  readonly kind: Job['kind'];
  readonly done: boolean;
  readonly relation_id: string;
  readonly key_columns: string[];
  readonly base: { readonly snapshot: string | null; readonly lsn: string } | null;
  readonly row_count: bigint;
  readonly byte_count: bigint;
  readonly estimated_rows: bigint | null;
}

interface PieceRow {
  readonly schema_name: string;
  readonly table_name: string;
  readonly piece: number;
  readonly leaf_id: string;
  readonly filenode: string;
  readonly after_key: string[] | null;
  readonly until_key: string[] | null;
  readonly ranges: StoredRange[];
  readonly row_count: bigint;
  readonly byte_count: bigint;
  readonly done: boolean;
}

const readPiece = (row: PieceRow): Piece => ({
  number: row.piece,
  leafId: Number(row.leaf_id),
  filenode: Number(row.filenode),
  after: row.after_key,
  until: row.until_key,
  ranges: row.ranges.map(({ until, in: has, lsn, ordinal }) => ({
    until,
    in: has,
    ...(lsn === undefined ? {} : { at: { commitLsn: parseLsn(lsn), ordinal: ordinal ?? 0 } }),
  })),
  rows: Number(row.row_count),
  bytes: Number(row.byte_count),
  done: row.done,
});
