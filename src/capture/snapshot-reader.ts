// One session of the source that reads tables in chunks, each in a short transaction on a database snapshot that is known.
//
// A chunk is all rows of a piece between two places, in their order. By key: as many rows as make a chunk. By ctid: the
// rows on the next pages, as many pages as are likely to make one; a place is then a ctid or the beginning of a page.
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import { PostgresClient } from '../postgres/client.ts';
import type { Relation } from '../postgres/pgoutput.ts';
import { quoteIdentifier } from '../postgres/replication.ts';
import { settleSession } from '../postgres/session-settings.ts';
import type { TableName } from './definition.ts';
import { type Described, describeTable } from './snapshot-description.ts';
import type { Piece, Place } from './snapshot-jobs.ts';
import { byCtid, cutTable } from './snapshot-plan.ts';
import { CaptureError, quoted, setPrinting } from './source.ts';
import { Visibility } from './visibility.ts';

/** A row's values in the order of the relation's columns, as Postgres prints them. */
export type Row = readonly (string | null)[];

export interface Chunk {
  readonly relation: Relation;
  readonly visibility: Visibility;
  readonly rows: readonly Row[];
  readonly placeOf: (row: number) => Place;
  /** What places are the values of. */
  readonly keyColumns: readonly string[];
  /** It has all rows up to here; null: all of the table that there are. */
  readonly until: Place | null;
  /** Nothing is left of what was asked for. */
  readonly exhausted: boolean;
  /** Of the rows' values. */
  readonly bytes: number;
}

/** What is to be read next. */
export interface Wanted {
  readonly table: TableName;
  readonly piece: Pick<Piece, 'leafId' | 'filenode'>;
  readonly after: Place | null;
  readonly until: Place | null;
  /** Only rows whose transaction this pg_snapshot sees; null: all. */
  readonly base: string | null;
  readonly maxRows: number;
}

/** The rows of a table have been written anew: places in it mean nothing any more. */
export type Unreadable = 'gone' | 'rewritten';

export const chunkRows = 10_000;
const chunkBytes = 4 * 1024 * 1024;
/** Rows may be large: it begins with few, and asks for more as it sees that they are not. */
const firstFetchRows = 4;
const fetchGrowth = 8;
const fetchBytes = 1024 * 1024;
const firstPages = 16;
const mostPages = 4096;

// Everything as text, as the stream has it.
const types: pg.CustomTypesConfig = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;

interface Fetched {
  readonly rows: (string | null)[][];
  bytes: number;
}

export class SnapshotReader {
  readonly #client: pg.Client;
  readonly #publication: string;
  readonly #version: number;
  /** Pages that are likely to hold a chunk. */
  #pages = firstPages;

  private constructor(client: pg.Client, publication: string, version: number) {
    this.#client = client;
    this.#publication = publication;
    this.#version = version;
  }

  static async open(url: string, publication: string, version: number): Promise<SnapshotReader> {
    const client = new PostgresClient(url, {
      application_name: 'millrace snapshot',
      connectionTimeoutMillis: 10_000,
      keepAlive: true,
      types,
    });
    client.on('error', () => {}); // its next query fails
    await client.connect();
    try {
      await client.query(settleSession);
      // Rather refuse than leave rows out.
      await client.query(`${setPrinting}; SET row_security = off`);
    } catch (error) {
      await client.end().catch(() => {});
      throw error;
    }
    return new SnapshotReader(client, publication, version);
  }

  async end(): Promise<void> {
    await this.#client.end().catch(() => {});
  }

  /** The table as it is now, and the pieces to read it in. undefined: there is none. */
  async plan(table: TableName, readers: number) {
    return this.#inTransaction(table, async () => {
      const described = await describeTable(this.#client, this.#version, this.#publication, table);
      return { described, pieces: await cutTable(this.#client, described, readers) };
    });
  }

  /** Throws CaptureError where the role may not read the table. */
  async read(wanted: Wanted): Promise<Chunk | Unreadable> {
    const { table, piece } = wanted;
    const read = await this.#inTransaction(table, async (): Promise<Chunk | Unreadable> => {
      const client = this.#client;
      const { rows: seen } = await client.query<{ seen: string }>('SELECT pg_current_snapshot()::text AS seen');
      const described = await describeTable(client, this.#version, this.#publication, table);
      const snapshot = seen[0]!.seen;
      const base = wanted.base !== null && tellsTransactions(snapshot) ? wanted.base : null;
      const visibility = new Visibility(snapshot);
      if (piece.leafId === 0) return this.#byKey({ ...wanted, base }, described, visibility);
      const { rows: leaves } = await client.query<Record<string, string | null>>(
        `SELECT format('%I.%I', n.nspname, l.relname) AS name, pg_relation_filenode(l.oid)::text AS filenode,
                pg_relation_size(l.oid) / current_setting('block_size')::int AS pages
         FROM pg_class l JOIN pg_namespace n ON n.oid = l.relnamespace WHERE l.oid = $1::oid`,
        [String(piece.leafId)],
      );
      const [leaf] = leaves;
      if (leaf === undefined) return 'gone';
      if (Number(leaf.filenode) !== piece.filenode) return 'rewritten';
      return this.#byPages({ ...wanted, base }, described, visibility, leaf.name!, Number(leaf.pages));
    });
    return read ?? 'gone';
  }

  /** Puts a mark behind everything that has been read: a transaction of one logical message. */
  static async mark(client: pg.Client, content: string): Promise<void> {
    await client.query('SELECT pg_logical_emit_message(true, $1, $2::text)', [snapshotPrefix, content]);
  }

  async #byKey(wanted: Wanted, described: Described, visibility: Visibility): Promise<Chunk> {
    const { table, after, until, maxRows } = wanted;
    const { relation, keyColumns, keyTypes, partitioned } = described;
    const key = keyColumns.map(quoteIdentifier).join(', ');
    const values: string[] = [];
    const placed = (bound: Place): string =>
      bound.map((value, i) => `$${values.push(value)}::text::${keyTypes[i]}`).join(', ');
    // A key of other columns than before is told by the chunk's, and its rows are not used.
    const fits = (bound: Place | null): bound is Place => bound?.length === keyColumns.length;
    const conditions = rowConditions(wanted, described, values);
    if (fits(after)) conditions.push(`ROW(${key}) > ROW(${placed(after)})`);
    if (fits(until)) conditions.push(`ROW(${key}) <= ROW(${placed(until)})`);
    const from = `${partitioned ? '' : 'ONLY '}${quoted(table)}`;
    await this.#declare(columnsOf(relation), from, conditions, key, values);
    const fetched: Fetched = { rows: [], bytes: 0 };
    const exhausted = await this.#fetch(fetched, maxRows);
    const { rows, bytes } = fetched;
    const indexes = keyColumns.map(name => relation.columns.findIndex(column => column.name === name));
    const placeOf = (row: number): Place => indexes.map(index => rows[row]![index]!);
    return {
      ...{ relation, visibility, rows, placeOf, keyColumns, exhausted, bytes },
      until: exhausted ? until : placeOf(rows.length - 1),
    };
  }

  /** `pages`: of the leaf, since the snapshot was taken; what it sees lies on them. */
  async #byPages(
    wanted: Wanted,
    described: Described,
    visibility: Visibility,
    leaf: string,
    pages: number,
  ): Promise<Chunk> {
    const { after, until, maxRows } = wanted;
    const { relation } = described;
    const end = until === null ? pages : pageOf(until) + (isPage(until) ? 0 : 1);
    const columns = `${columnsOf(relation)}${relation.columns.length > 0 ? ', ' : ''}ctid`;
    const fetched: Fetched = { rows: [], bytes: 0 };
    let place: Place = after ?? ['(0,0)'];
    let exhausted = false;
    while (!exhausted && fetched.rows.length < maxRows && fetched.bytes < chunkBytes) {
      const page = pageOf(place);
      const upTo = Math.min(page + this.#pages, end);
      const values: string[] = [];
      const conditions = rowConditions(wanted, described, values);
      conditions.push(`ctid > $${values.push(place[0]!)}::text::tid`);
      const bound = upTo === end && until !== null ? until[0]! : `(${upTo},0)`;
      conditions.push(`ctid <= $${values.push(bound)}::text::tid`);
      // A TID range scan; its few rows are sorted, so that it does not matter should it be another one.
      await this.#declare(columns, `ONLY ${leaf}`, conditions, 'ctid', values);
      const before = fetched.rows.length;
      const drained = await this.#fetch(fetched, maxRows);
      await this.#client.query('CLOSE rows');
      const found = fetched.rows.length - before;
      const wish = Math.ceil((this.#pages * maxRows) / Math.max(found, 1));
      this.#pages = Math.max(1, Math.min(wish, this.#pages * 2, mostPages));
      place = drained ? [bound] : [fetched.rows.at(-1)!.at(-1)!];
      exhausted = drained && upTo >= end;
    }
    const places = fetched.rows.map(row => row.pop()!);
    return {
      ...{ relation, visibility, rows: fetched.rows, keyColumns: byCtid, exhausted, bytes: fetched.bytes },
      placeOf: row => [places[row]!],
      until: exhausted ? until : place,
    };
  }

  async #declare(
    columns: string,
    from: string,
    conditions: readonly string[],
    order: string,
    values: string[],
  ): Promise<void> {
    await this.#client.query(
      `DECLARE rows NO SCROLL CURSOR FOR SELECT ${columns} FROM ${from}
       ${conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : ''} ORDER BY ${order}`,
      values,
    );
  }

  /** Adds rows until they make a chunk. True when there were no more. */
  async #fetch(fetched: Fetched, maxRows: number): Promise<boolean> {
    const { rows } = fetched;
    let exhausted = false;
    for (let count = firstFetchRows; !exhausted && rows.length < maxRows && fetched.bytes < chunkBytes; ) {
      count = Math.min(count, maxRows - rows.length);
      const answer = await this.#client.query<(string | null)[]>({
        text: `FETCH ${count} FROM rows`,
        rowMode: 'array',
      });
      exhausted = answer.rows.length < count;
      let bytes = 0;
      for (const row of answer.rows) {
        rows.push(row);
        for (const value of row) bytes += value?.length ?? 0;
      }
      fetched.bytes += bytes;
      const fits = Math.floor((fetchBytes * answer.rows.length) / Math.max(bytes, 1));
      count = Math.max(1, Math.min(fits, count * fetchGrowth));
    }
    return exhausted;
  }

  /**
   * The lock comes before the snapshot: a TRUNCATE or a change of the table that came between them would show an empty
   * table. undefined: there is no such table.
   */
  async #inTransaction<T>(table: TableName, work: () => Promise<T>): Promise<T | undefined> {
    const client = this.#client;
    try {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      await client.query(`LOCK TABLE ${quoted(table)} IN ACCESS SHARE MODE`);
      const result = await work();
      await client.query('COMMIT');
      return result;
    } catch (error) {
      await client.query('ROLLBACK').catch(() => {}); // its connection may be gone
      const { code } = error as { code?: string };
      if (code === '42P01') return undefined;
      if (code !== '42501') throw error;
      throw new CaptureError(
        `the role may not read ${table.schema}.${table.name} (${(error as Error).message})`,
        `run as its owner: GRANT SELECT ON ${quoted(table)} TO ${quoteIdentifier(client.user ?? '')}; a role that row security holds for needs BYPASSRLS`,
      );
    }
  }
}

const columnsOf = (relation: Relation): string =>
  relation.columns.map(column => quoteIdentifier(column.name)).join(', ');

const pageOf = (place: Place): number => Number(/^\((\d+),/.exec(place[0]!)![1]);

/** Whether it is the beginning of a page: offsets begin with 1. */
const isPage = (place: Place): boolean => place[0]!.endsWith(',0)');

function rowConditions({ base }: Wanted, { filter }: Described, values: string[]): string[] {
  const conditions = filter === null ? [] : [`(${filter})`];
  if (base !== null) {
    conditions.push(`pg_visible_in_snapshot(xmin::text::xid8, $${values.push(base)}::text::pg_snapshot)`);
  }
  return conditions;
}

/** A row has the lower 32 bits of its transaction's id: they tell which one it is until they have gone round once. */
const tellsTransactions = (snapshot: string): boolean => BigInt(snapshot.split(':')[1]!) < 1n << 32n;

/** The prefix of marks in the stream. */
export const snapshotPrefix = 'millrace.snapshot';

/** What a mark says: nothing that another session could guess. */
export const newMark = (): string => randomBytes(16).toString('hex');
