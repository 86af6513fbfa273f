// Reads a table in chunks, each on a database snapshot that is known. One session of the source.
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import type { Relation, ReplicaIdentity } from '../postgres/pgoutput.ts';
import { quoteIdentifier } from '../postgres/replication.ts';
import { settleSession } from '../postgres/session-settings.ts';
import type { KeyValues } from './snapshot-jobs.ts';
import { CaptureError, quoted, setPrinting } from './source.ts';
import { Visibility } from './visibility.ts';

/** A row's values in the order of the relation's columns, as Postgres prints them. */
export type Row = readonly (string | null)[];

export interface Chunk {
  readonly relation: Relation;
  readonly visibility: Visibility;
  readonly rows: readonly Row[];
  readonly keyColumns: readonly string[];
  /** Places of the key's columns in a row. */
  readonly keyIndexes: readonly number[];
  /** Nothing is left after these rows. */
  readonly exhausted: boolean;
  readonly estimatedRows: number;
}

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

const chunkRows = 10_000;
const chunkBytes = 4 * 1024 * 1024;
/** Rows may be large: it begins with few, and asks for more as it sees that they are not. */
const firstFetchRows = 4;
const fetchGrowth = 8;
const fetchBytes = 1024 * 1024;

interface Described {
  readonly relation: Relation;
  readonly keyColumns: readonly string[];
  readonly keyTypes: readonly string[];
  readonly partitioned: boolean;
  readonly estimatedRows: number;
  readonly filter: string | null;
}

interface Reading extends Described {
  readonly visibility: Visibility;
}

// Everything as text, as the stream has it.
const types: pg.CustomTypesConfig = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;

export class SnapshotReader {
  readonly #client: pg.Client;
  readonly #publication: string;
  readonly #version: number;
  /** A table without a primary key, in one transaction from its first row to its last. */
  #whole: Reading | undefined;

  private constructor(client: pg.Client, publication: string, version: number) {
    this.#client = client;
    this.#publication = publication;
    this.#version = version;
  }

  static async open(url: string, publication: string, version: number): Promise<SnapshotReader> {
    const client = new pg.Client({
      connectionString: url,
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

  /**
   * Rows after the key `after`, in the key's order, up to `until`: as many as make a chunk. Without a primary key, the next
   * rows of a table that is read in one transaction. undefined: there is no such table any more.
   */
  async read(table: TableName, after: KeyValues | null, until: KeyValues | null): Promise<Chunk | undefined> {
    const client = this.#client;
    try {
      const reading = this.#whole ?? (await this.#begin(table, after, until));
      const rows: Row[] = [];
      let exhausted = false;
      let bytes = 0;
      for (let count = firstFetchRows; !exhausted && rows.length < chunkRows && bytes < chunkBytes; ) {
        const fetched = await client.query<(string | null)[]>({ text: `FETCH ${count} FROM rows`, rowMode: 'array' });
        exhausted = fetched.rows.length < count;
        let fetchedBytes = 0;
        for (const row of fetched.rows) {
          rows.push(row);
          for (const value of row) fetchedBytes += value?.length ?? 0;
        }
        bytes += fetchedBytes;
        const fits = Math.floor((fetchBytes * fetched.rows.length) / Math.max(fetchedBytes, 1));
        count = Math.max(1, Math.min(fits, count * fetchGrowth, chunkRows - rows.length));
      }
      const { relation, keyColumns, visibility, estimatedRows } = reading;
      this.#whole = keyColumns.length === 0 && !exhausted ? reading : undefined;
      if (this.#whole === undefined) await client.query('COMMIT');
      const keyIndexes = keyColumns.map(name => relation.columns.findIndex(column => column.name === name));
      return { relation, visibility, rows, keyColumns, keyIndexes, exhausted, estimatedRows };
    } catch (error) {
      this.#whole = undefined;
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

  /** Leaves a table that is read in one transaction. */
  async abandon(): Promise<void> {
    if (this.#whole === undefined) return;
    this.#whole = undefined;
    await this.#client.query('ROLLBACK');
  }

  /** Puts a mark behind everything that has been read: a transaction of one logical message. */
  static async mark(client: pg.Client, content: string): Promise<void> {
    await client.query('SELECT pg_logical_emit_message(true, $1, $2::text)', [snapshotPrefix, content]);
  }

  /**
   * The lock comes before the snapshot: a TRUNCATE or a change of the table that came between them would show an empty
   * table.
   */
  async #begin(table: TableName, after: KeyValues | null, until: KeyValues | null): Promise<Reading> {
    const client = this.#client;
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    await client.query(`LOCK TABLE ${quoted(table)} IN ACCESS SHARE MODE`);
    const { rows } = await client.query<{ seen: string }>('SELECT pg_current_snapshot()::text AS seen');
    const described = await this.#describe(table);
    const { relation, keyColumns, keyTypes, partitioned, filter } = described;
    const columns = relation.columns.map(column => quoteIdentifier(column.name)).join(', ');
    const key = keyColumns.map(quoteIdentifier).join(', ');
    const values: string[] = [];
    const placed = (bound: KeyValues): string =>
      bound.map((value, i) => `$${values.push(value)}::text::${keyTypes[i]}`).join(', ');
    const conditions: string[] = filter === null ? [] : [`(${filter})`];
    if (key !== '' && after !== null) conditions.push(`ROW(${key}) > ROW(${placed(after)})`);
    if (key !== '' && until !== null) conditions.push(`ROW(${key}) <= ROW(${placed(until)})`);
    await client.query(
      `DECLARE rows NO SCROLL CURSOR FOR SELECT ${columns} FROM ${partitioned ? '' : 'ONLY '}${quoted(table)}
       ${conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : ''} ${key === '' ? '' : `ORDER BY ${key}`}`,
      values,
    );
    return { ...described, visibility: new Visibility(rows[0]!.seen) };
  }

  async #describe(table: TableName): Promise<Described> {
    // Column lists and row filters of publications: from PostgreSQL 15 on.
    const published = this.#version >= 150_000 ? 'p.attnames' : 'NULL::name[]';
    const filtered = this.#version >= 150_000 ? 'p.rowfilter' : 'NULL';
    const { rows } = await this.#client.query<Record<string, string>>(
      `SELECT c.oid::text, c.relkind::text AS kind, c.relreplident::text AS identity, ${filtered} AS filter,
              (SELECT greatest(0, sum(r.reltuples))::int8 FROM pg_class r
               WHERE r.oid = c.oid OR r.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf)) AS estimated,
              a.attname::text AS name, a.atttypid::text AS type, a.atttypmod AS modifier,
              format_type(a.atttypid, a.atttypmod) AS type_name,
              array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum) AS place
       FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
       LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
       LEFT JOIN pg_publication_tables p ON p.pubname = $2 AND p.schemaname = $3 AND p.tablename = $4
       WHERE c.oid = $1::regclass AND (${published} IS NULL OR a.attname = ANY (${published}))
       ORDER BY a.attnum`,
      [quoted(table), this.#publication, table.schema, table.name],
    );
    const first = rows[0];
    const key = rows.filter(row => row.place !== null).toSorted((a, b) => Number(a.place) - Number(b.place));
    return {
      relation: {
        kind: 'relation',
        xid: 0,
        id: Number(first?.oid ?? 0),
        schema: table.schema,
        name: table.name,
        replicaIdentity: identities[first?.identity ?? 'd'] ?? 'default',
        columns: rows.map(row => ({
          isKey: row.place !== null,
          name: row.name!,
          typeOid: Number(row.type),
          typeModifier: Number(row.modifier),
        })),
      },
      keyColumns: key.map(row => row.name!),
      keyTypes: key.map(row => row.type_name!),
      partitioned: first?.kind === 'p',
      estimatedRows: Number(first?.estimated ?? 0),
      filter: first?.filter ?? null,
    };
  }
}

const identities: Readonly<Record<string, ReplicaIdentity>> = { d: 'default', n: 'nothing', f: 'full', i: 'index' };

/** The prefix of marks in the stream. */
export const snapshotPrefix = 'millrace.snapshot';

/** What a mark says: nothing that another session could guess. */
export const newMark = (): string => randomBytes(16).toString('hex');
