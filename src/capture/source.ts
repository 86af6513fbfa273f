// The database that is captured, as a client sees it: whether it can be captured, its tables and types, the publication
// and the slot. What is wrong is told with the SQL that mends it; what would lose changes ends the capture.
import type pg from 'pg';
import { PostgresClient } from '../postgres/client.ts';
import { formatLsn, type Lsn, noLsn, parseLsn } from '../postgres/lsn.ts';
import { quoteIdentifier, ReplicationConnection } from '../postgres/replication.ts';
import { settleSession } from '../postgres/session-settings.ts';
import { codeOf } from '../runtime/errors.ts';
import type { ColumnFacts } from './column-schema.ts';
import { type CaptureDefinition, gapHint, isCaptured, isPartCaptured, type TableName } from './definition.ts';
import { publishedBy, treeOf } from './publication.ts';
import type { TypeInfo } from './values.ts';

/** Why a capture cannot go on, and the way out. Trying again without it changes nothing. */
export class CaptureError extends Error {
  override name = 'CaptureError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/** Changes have been lost: the stream cannot go on where the capture is. */
export class GapError extends CaptureError {
  override name = 'GapError';
}

/** Types with smaller ones are PostgreSQL's own. */
const firstOwnOid = 16_384;

/** How values are printed; values.ts reads this form. */
export const printing = {
  DateStyle: 'ISO',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  extra_float_digits: '3',
  bytea_output: 'hex',
  lc_monetary: 'C',
  statement_timeout: '0',
} as const;

export const setPrinting = Object.entries(printing)
  .map(([name, value]) => `SET ${name} = '${value}'`)
  .join('; ');

/**
 * Since PostgreSQL 18 a replica identity of the whole row takes in generated columns: an UPDATE or DELETE fails where they
 * are not published, which ours does not. What somebody has published is their own affair.
 */
const fullIsPublished = `c.relreplident = 'f' AND (
  NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped)
  OR c.oid IN ${publishedBy('$1', 180_000)})`;

/** What makes an UPDATE or DELETE of these tables say which row. */
export function identityHint(tables: readonly SourceTable[]): string {
  const alter = (identity: string, some: readonly SourceTable[]) =>
    some.map(table => `ALTER TABLE ${quoted(table)} REPLICA IDENTITY ${identity}`).join('; ');
  const whole = tables.filter(table => table.replicaIdentity === 'f');
  const without = tables.filter(table => table.replicaIdentity !== 'f');
  const hints: string[] = [];
  if (without.length > 0) hints.push(`give a primary key, or run: ${alter('FULL', without)}`);
  if (whole.length > 0) {
    hints.push(
      `PostgreSQL 18 wants generated columns published that REPLICA IDENTITY FULL takes in: run: ${alter('DEFAULT', whole)} (with a primary key), or make the publication yourself WITH (publish_generated_columns = stored)`,
    );
  }
  return hints.join('; or ');
}

export interface SourceTable extends TableName {
  readonly oid: number;
  readonly key: readonly string[];
  readonly replicaIdentity: string;
  /** Whether an UPDATE or DELETE says which row. */
  readonly hasIdentity: boolean;
  /** Of a partition that is published under its own name. */
  readonly ancestors: readonly TableName[];
}

export interface SlotState {
  readonly plugin: string;
  readonly database: string;
  readonly confirmed: Lsn;
  readonly active: boolean;
  readonly walStatus: string;
  readonly retainedBytes: bigint;
  /** Until the slot is invalidated; null without max_slot_wal_keep_size. */
  readonly safeBytes: bigint | null;
  /** Whether standbys follow it; undefined before PostgreSQL 17. */
  readonly failover: boolean | undefined;
}

/** The comment of a publication that Millrace may drop. */
const madeByMillrace = 'made by Millrace';

interface SourceFacts {
  readonly database: string;
  readonly version: number;
  readonly backend: number;
}

export class Source {
  readonly client: pg.Client;
  readonly database: string;
  /** server_version_num. */
  readonly version: number;
  readonly #url: string;
  readonly #backend: number;
  readonly #types = new Map<number, TypeInfo>();

  private constructor(client: pg.Client, url: string, facts: SourceFacts) {
    this.client = client;
    this.database = facts.database;
    this.version = facts.version;
    this.#url = url;
    this.#backend = facts.backend;
  }

  static async open(url: string, onLost: (error: Error) => void): Promise<Source> {
    const client = new PostgresClient(url, {
      application_name: 'millrace capture',
      connectionTimeoutMillis: 10_000,
      keepAlive: true,
    });
    client.on('error', onLost);
    await client.connect();
    try {
      await client.query(`${settleSession}; ${setPrinting}`);
      const { rows } = await client.query<SourceFacts & { wal_level: string; may: boolean }>(
        `SELECT current_database()::text AS database, current_setting('server_version_num')::int AS version,
                pg_backend_pid() AS backend,
                current_setting('wal_level') AS wal_level,
                (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may`,
      );
      const { wal_level, may } = rows[0]!;
      if (wal_level !== 'logical') {
        throw new CaptureError(
          `wal_level is ${wal_level}; capture needs logical`,
          `run as a superuser: ALTER SYSTEM SET wal_level = 'logical'; then restart PostgreSQL`,
        );
      }
      if (!may) {
        throw new CaptureError(
          `role ${client.user} lacks REPLICATION`,
          `run as a superuser: ALTER ROLE ${quoteIdentifier(client.user ?? '')} REPLICATION`,
        );
      }
      return new Source(client, url, rows[0]!);
    } catch (error) {
      await client.end().catch(() => {});
      throw error;
    }
  }

  async end(): Promise<void> {
    await this.client.end().catch(() => {});
  }

  /** Has the query that runs now fail. */
  async cancel(): Promise<void> {
    const other = await Source.open(this.#url, () => {}).catch(() => undefined);
    await other?.client.query('SELECT pg_cancel_backend($1)', [this.#backend]).catch(() => {});
    await other?.end();
  }

  /** A partitioned table is one, or each of its partitions is, as the publication says; where there is none yet, one. */
  async tables(definition: CaptureDefinition): Promise<SourceTable[]> {
    const { rows } = await this.client.query<{
      oid: number;
      schema: string;
      name: string;
      key: string[] | null;
      identity: string;
      has_identity: boolean;
      ancestors: TableName[] | null;
    }>(
      `SELECT c.oid::int8::int4 AS oid, n.nspname::text AS schema, c.relname::text AS name, ${keyOf('c.oid')} AS key,
              c.relreplident::text AS identity,
              ${this.version >= 180_000 ? fullIsPublished : `c.relreplident = 'f'`} OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
                AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END) AS has_identity,
              CASE WHEN c.relispartition THEN ${ancestorsOf('c.oid')} END AS ancestors
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relpersistence = 'p'
         AND CASE WHEN (SELECT pubviaroot FROM pg_publication WHERE pubname = $1) IS DISTINCT FROM false
               THEN c.relkind IN ('r', 'p') AND NOT c.relispartition ELSE c.relkind = 'r' END
         AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'kafka') AND n.nspname NOT LIKE 'pg\\_%'
       ORDER BY 2, 3`,
      [definition.publication],
    );
    return rows
      .filter(
        row =>
          isCaptured(definition, row.schema, row.name) ||
          (row.ancestors !== null && isPartCaptured(definition, row, row.ancestors)),
      )
      .map(row => ({
        oid: row.oid >>> 0,
        schema: row.schema,
        name: row.name,
        key: row.key ?? [],
        replicaIdentity: row.identity,
        hasIdentity: row.has_identity,
        ancestors: row.ancestors ?? [],
      }));
  }

  /** What a partition is a part of. */
  async ancestors(relationId: number): Promise<readonly TableName[]> {
    const { rows } = await this.client.query<{ ancestors: TableName[] | null }>(
      `SELECT ${ancestorsOf('$1::oid')} AS ancestors`,
      [relationId],
    );
    return rows[0]!.ancestors ?? [];
  }

  /**
   * Makes the publication, or brings it in line with the definition. Before the slot: a slot remembers what was. That of a
   * capture which has begun (`confirmed`) is not made again: what was changed without it does not come. What somebody has
   * given it stays: column lists, row filters, whether partitions go by their root's name. Returns the tables
   * that are published; those that are new to a capture which has begun are taken in while it streams (membership.ts).
   */
  async ensurePublication(
    definition: CaptureDefinition,
    wanted: readonly SourceTable[],
    confirmed: Lsn,
  ): Promise<readonly SourceTable[]> {
    const begun = confirmed !== noLsn && definition.snapshot !== 'only';
    const { missing, surplus } = await this.differences(definition, wanted);
    const tables = begun ? wanted.filter(table => !missing.includes(table)) : wanted;
    const { publication } = definition;
    const publish = publishOf(definition);
    const blind = changesRows(definition) ? tables.filter(table => !table.hasIdentity) : [];
    if (blind.length > 0) {
      throw new CaptureError(
        `${blind.map(table => `${table.schema}.${table.name}`).join(', ')} cannot be told apart by row: UPDATE and DELETE would fail once published`,
        `${identityHint(blind)}; or leave update and delete out of operations`,
      );
    }
    const list = tables.map(quoted).join(', ');
    const name = quoteIdentifier(publication);
    const withOptions = `publish = '${publish}', publish_via_partition_root = true`;
    const { rows } = await this.client.query<{ all: boolean; publish: string }>(
      `SELECT puballtables AS all, concat_ws(', ', CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubinsert THEN 'insert' END,
                CASE WHEN pubtruncate THEN 'truncate' END, CASE WHEN pubupdate THEN 'update' END) AS publish
       FROM pg_publication WHERE pubname = $1`,
      [publication],
    );
    if (rows[0]?.all) {
      throw new CaptureError(
        `publication ${publication} is FOR ALL TABLES, which would publish schema kafka as well`,
        `run: DROP PUBLICATION ${name}; Millrace makes one for the tables that are asked for`,
      );
    }
    const statements: string[] = [];
    if (rows[0] === undefined) {
      if (confirmed !== noLsn) throw publicationGone(definition, confirmed);
      statements.push(`CREATE PUBLICATION ${name}${list === '' ? '' : ` FOR TABLE ${list}`} WITH (${withOptions})`);
    } else {
      if (missing.length > 0 && !begun)
        statements.push(`ALTER PUBLICATION ${name} ADD TABLE ${missing.map(quoted).join(', ')}`);
      if (surplus.length > 0) statements.push(`ALTER PUBLICATION ${name} DROP TABLE ${surplus.map(quoted).join(', ')}`);
      if (publish.split(', ').toSorted().join(', ') !== rows[0].publish)
        statements.push(`ALTER PUBLICATION ${name} SET (publish = '${publish}')`);
    }
    try {
      const ours = rows[0] === undefined ? `; COMMENT ON PUBLICATION ${name} IS '${madeByMillrace}'` : '';
      for (const statement of statements) await this.client.query(statement + ours);
      return tables;
    } catch (error) {
      if ((error as { code?: string }).code !== '42501') throw error;
      throw new CaptureError(
        `the role may not publish the tables (${(error as Error).message})`,
        `run as their owner: ${statements.join('; ')}`,
      );
    }
  }

  /** What the publication lacks, and what it has that is not asked for. */
  async differences(
    definition: CaptureDefinition,
    tables: readonly SourceTable[],
  ): Promise<{ missing: SourceTable[]; surplus: TableName[] }> {
    const { rows: published } = await this.client.query<TableName>(
      `SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.oid IN ${publishedBy('$1', this.version)}`,
      [definition.publication],
    );
    const { rows: members } = await this.client.query<TableName>(
      `SELECT n.nspname::text AS schema, c.relname::text AS name
       FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1`,
      [definition.publication],
    );
    const isOne = (of: readonly TableName[], { schema, name }: TableName): boolean =>
      of.some(one => one.schema === schema && one.name === name);
    const wanted = tables.flatMap(table => [table, ...table.ancestors]);
    return {
      missing: tables.filter(table => !isOne(published, table)),
      surplus: members.filter(member => !isOne(wanted, member) && !isCaptured(definition, member.schema, member.name)),
    };
  }

  async publish({ publication }: CaptureDefinition, table: TableName): Promise<void> {
    await this.client.query(`ALTER PUBLICATION ${quoteIdentifier(publication)} ADD TABLE ${quoted(table)}`);
  }

  /** What it publishes by the way is nobody's: that it cannot be left out harms nothing. */
  async unpublish({ publication }: CaptureDefinition, table: TableName): Promise<void> {
    const query = `ALTER PUBLICATION ${quoteIdentifier(publication)} DROP TABLE ${quoted(table)}`;
    await this.client.query(query).catch((error: unknown) => {
      if (!['42501', '42704', '42P01'].includes(codeOf(error) ?? '')) throw error;
    });
  }

  /**
   * Has walsenders look anew whether a table is published, which it is all the time: what they keep of it goes with the
   * table's row in the publication only.
   */
  async publishAgain({ publication }: CaptureDefinition, table: TableName): Promise<void> {
    const alter = `ALTER PUBLICATION ${quoteIdentifier(publication)}`;
    await this.client.query(`${alter} DROP TABLE ${quoted(table)}; ${alter} ADD TABLE ${quoted(table)}`);
  }

  /** The virtual transactions that write to a table or its partitions now. */
  async writersOf(relationId: number): Promise<readonly string[]> {
    const { rows } = await this.client.query<{ writer: string }>(
      `SELECT DISTINCT l.virtualtransaction AS writer FROM pg_locks l
       WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND l.relation IN ${treeOf('$1::oid')}
         AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`,
      [String(relationId)],
    );
    return rows.map(({ writer }) => writer);
  }

  async isPublished({ publication }: CaptureDefinition): Promise<boolean> {
    const { rowCount } = await this.client.query('SELECT FROM pg_publication WHERE pubname = $1', [publication]);
    return rowCount === 1;
  }

  /** Who made it, as its comment tells; undefined where there is none. */
  async publicationOwner(publication: string): Promise<'millrace' | 'other' | undefined> {
    const { rows } = await this.client.query<{ own: boolean | null }>(
      `SELECT obj_description(oid, 'pg_publication') = $2 AS own FROM pg_publication WHERE pubname = $1`,
      [publication, madeByMillrace],
    );
    return rows[0] && (rows[0].own ? 'millrace' : 'other');
  }

  async slot(name: string): Promise<SlotState | undefined> {
    const { rows } = await this.client.query<{
      plugin: string;
      database: string;
      confirmed: string | null;
      active: boolean;
      wal_status: string | null;
      retained: string | null;
      safe: string | null;
      failover: boolean | null;
    }>(
      `SELECT plugin::text, database::text, confirmed_flush_lsn::text AS confirmed, active, wal_status,
              pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8::text AS retained, safe_wal_size::text AS safe,
              ${this.version >= 170_000 ? 'failover' : 'NULL::boolean'} AS failover
       FROM pg_replication_slots WHERE slot_name = $1`,
      [name],
    );
    const row = rows[0];
    if (row === undefined) return undefined;
    return {
      plugin: row.plugin,
      database: row.database,
      confirmed: row.confirmed === null ? 0n : parseLsn(row.confirmed),
      active: row.active,
      walStatus: row.wal_status ?? 'lost',
      retainedBytes: BigInt(row.retained ?? 0),
      safeBytes: row.safe === null ? null : BigInt(row.safe),
      failover: row.failover ?? undefined,
    };
  }

  /** Returns where the slot begins. Waits for transactions that are running to end. */
  async createSlot(name: string, failover: boolean): Promise<Lsn> {
    const call =
      failover && this.version >= 170_000
        ? `pg_create_logical_replication_slot($1, 'pgoutput', false, false, true)`
        : `pg_create_logical_replication_slot($1, 'pgoutput')`;
    try {
      const { rows } = await this.client.query<{ lsn: string }>(`SELECT lsn::text FROM ${call}`, [name]);
      return parseLsn(rows[0]!.lsn);
    } catch (error) {
      if ((error as { code?: string }).code !== '53400') throw error;
      throw new CaptureError(
        'all replication slots are in use',
        'raise max_replication_slots and restart PostgreSQL, or drop a slot that nobody uses (pg_replication_slots)',
      );
    }
  }

  /** Has standbys follow a slot that was made without. From PostgreSQL 17 on, while nobody reads it. */
  async makeFailover(name: string): Promise<void> {
    const connection = await ReplicationConnection.open(this.#url, 'millrace capture');
    try {
      await connection.command(`ALTER_REPLICATION_SLOT ${quoteIdentifier(name)} (FAILOVER true)`);
    } finally {
      await connection.end();
    }
  }

  /** Drops the slot if there is one, once its walsender has gone. */
  async dropSlot(name: string): Promise<void> {
    await this.client.query(
      'SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active',
      [name],
    );
    await this.client.query(
      'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1',
      [name],
    );
  }

  /** Types of columns, from what the catalogue says now. */
  readonly type = (oid: number): TypeInfo | undefined => this.#types.get(oid);

  /** Reads the types that are not known yet, or may have changed: those of the oids, their elements and what domains are made of. */
  async loadTypes(oids: readonly number[]): Promise<void> {
    // An enum may have got labels since it was read.
    const read = new Set<number>();
    const isWanted = (oid: number) => !read.has(oid) && (oid >= firstOwnOid || !this.#types.has(oid));
    let wanted = oids.filter(isWanted);
    while (wanted.length > 0) {
      for (const oid of wanted) read.add(oid);
      const { rows } = await this.client.query<{
        oid: string;
        name: string;
        kind: string;
        element: string;
        base: string;
        modifier: number;
        delimiter: string;
        labels: string[] | null;
      }>(
        `SELECT t.oid::text, t.typname::text AS name, t.typtype::text AS kind,
                CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END::text AS element,
                t.typbasetype::text AS base, t.typtypmod AS modifier, coalesce(e.typdelim, ',')::text AS delimiter,
                (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) AS labels
         FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' WHERE t.oid = ANY ($1::oid[])`,
        [wanted],
      );
      for (const row of rows) {
        this.#types.set(Number(row.oid), {
          oid: Number(row.oid),
          name: row.name,
          kind: row.kind,
          elementOid: Number(row.element),
          baseOid: Number(row.base),
          baseModifier: row.modifier,
          delimiter: row.delimiter,
          labels: row.labels ?? [],
        });
      }
      wanted = rows.flatMap(row => [Number(row.element), Number(row.base)]).filter(oid => oid !== 0 && isWanted(oid));
    }
  }

  /** What else is known of columns, by name, as they are now. Defaults are printed as their values are. */
  async columnFacts(relationId: number): Promise<ReadonlyMap<string, ColumnFacts>> {
    const { rows } = await this.client.query<{ name: string; required: boolean; default_expression: string | null }>(
      `SELECT a.attname::text AS name, a.attnotnull AS required,
              CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default_expression
       FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
       WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped`,
      [relationId],
    );
    return new Map(rows.map(row => [row.name, { required: row.required, defaultExpression: row.default_expression }]));
  }

  /** The columns that tell a table's rows apart, in their order, as they are now (see `keyOf`); undefined where it is gone. */
  async primaryKey(relationId: number): Promise<readonly string[] | undefined> {
    const { rows } = await this.client.query<{ key: string[] | null }>(
      `SELECT ${keyOf('c.oid')} AS key FROM pg_class c WHERE c.oid = $1::oid`,
      [relationId],
    );
    return rows[0] && (rows[0].key ?? []);
  }
}

/** Up to 17 PostgreSQL refuses to decode without it; from 18 on it leaves out the changes, and says so in its own log only. */
export function publicationGone(definition: CaptureDefinition, since?: Lsn): GapError {
  return new GapError(
    `publication ${definition.publication} is gone, and with it changes${since === undefined ? '' : ` since ${formatLsn(since)}`}`,
    gapHint(definition),
  );
}

/** Those of the index that is the replica identity where there is one: of a row that is deleted, nothing else is told. */
const keyOf = (table: string): string => `(SELECT array_agg(a.attname::text ORDER BY k.place)
  FROM pg_class t JOIN pg_index i ON i.indrelid = t.oid CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum
  WHERE t.oid = ${table} AND CASE t.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
    AND k.place <= i.indnkeyatts)`; // not what an index includes

const ancestorsOf = (
  table: string,
): string => `(SELECT json_agg(json_build_object('schema', an.nspname, 'name', a.relname))
  FROM pg_partition_ancestors(${table}) p JOIN pg_class a ON a.oid = p.relid JOIN pg_namespace an ON an.oid = a.relnamespace
  WHERE a.oid <> ${table})`;

/** Whether an UPDATE or DELETE must tell which row it means. */
export const changesRows = ({ operations }: CaptureDefinition): boolean =>
  operations.includes('update') || operations.includes('delete');

/** The publication's `publish`. */
const publishOf = ({ operations }: CaptureDefinition): string =>
  operations.map(operation => (operation === 'create' ? 'insert' : operation)).join(', ');

export const quoted = (table: TableName): string => `${quoteIdentifier(table.schema)}.${quoteIdentifier(table.name)}`;
