// A target table as its database describes it: columns, their types down to what they are made of, and its keys.
import type { ClientBase } from 'pg';
import type { Pool } from '../postgres/pool.ts';
import type { TableName } from './definition.ts';

export interface PgType {
  readonly oid: number;
  readonly name: string;
  /** As SQL has it, without a modifier. */
  readonly sql: string;
  /** pg_type.typtype: b base, c composite, d domain, e enum, r range, m multirange. */
  readonly kind: string;
  /** Of an array. */
  readonly element: PgType | undefined;
  /** Of a domain. */
  readonly base: PgType | undefined;
  readonly baseModifier: number;
  /** Between an array's elements: a comma, but for box. */
  readonly delimiter: string;
}

export interface Column {
  readonly name: string;
  readonly type: PgType;
  readonly modifier: number;
  /** A null is refused whatever happens: NOT NULL, and no trigger that could put something in its place. */
  readonly notNull: boolean;
  readonly hasDefault: boolean;
  /** GENERATED ALWAYS AS (…): never written. */
  readonly generated: boolean;
  readonly identityAlways: boolean;
  /** Where it is not the type's own. */
  readonly collation: string | undefined;
}

export interface TargetTable {
  readonly oid: number;
  readonly name: TableName;
  /** Quoted. */
  readonly sql: string;
  readonly columns: readonly Column[];
  readonly primaryKey: readonly string[] | undefined;
  /** The columns of each unique index that ON CONFLICT can use, the primary key's included. */
  readonly uniqueKeys: readonly (readonly string[])[];
}

export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;
export const quoteTable = ({ schema, name }: TableName): string => `${quote(schema)}.${quote(name)}`;

interface ColumnRow {
  name: string;
  type: number;
  modifier: number;
  not_null: boolean;
  has_default: boolean;
  generated: string;
  identity: string;
  collation: string | null;
}

interface TypeRow {
  oid: number;
  name: string;
  sql: string;
  kind: string;
  element: number;
  base: number;
  base_modifier: number;
  delimiter: string;
}

/** Undefined where there is no such table. */
export async function readTable(client: Pool | ClientBase, name: TableName): Promise<TargetTable | undefined> {
  const { rows: tables } = await client.query<{ oid: number; triggers: boolean }>(
    `SELECT c.oid, relkind IN ('v', 'f') OR EXISTS (
              SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal AND tgtype & 2 = 2) AS triggers
     FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE nspname = $1 AND relname = $2 AND relkind IN ('r', 'p', 'v', 'f')`,
    [name.schema, name.name],
  );
  if (tables[0] === undefined) return undefined;
  const { oid, triggers } = tables[0];
  const { rows: columns } = await client.query<ColumnRow>(
    `SELECT attname AS name, atttypid AS type, atttypmod AS modifier, attnotnull AS not_null,
            atthasdef OR attidentity <> '' AS has_default, attgenerated AS generated, attidentity AS identity,
            (SELECT quote_ident(nspname) || '.' || quote_ident(collname)
             FROM pg_collation l JOIN pg_namespace n ON n.oid = collnamespace
             WHERE l.oid = attcollation AND l.oid <> typcollation) AS collation
     FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
     WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
    [oid],
  );
  const { rows: types } = await client.query<TypeRow>(
    `WITH RECURSIVE used AS (
       SELECT unnest($1::oid[]) AS oid
       UNION
       SELECT next FROM used JOIN pg_type t USING (oid),
         LATERAL (VALUES (typbasetype), (CASE WHEN typcategory = 'A' THEN typelem ELSE 0 END)) AS n (next) WHERE next <> 0)
     SELECT t.oid, typname AS name, format_type(t.oid, -1) AS sql, typtype AS kind, typbasetype AS base,
            typtypmod AS base_modifier, CASE WHEN typcategory = 'A' THEN typelem ELSE 0 END AS element,
            coalesce((SELECT e.typdelim FROM pg_type e WHERE e.oid = t.typelem), ',') AS delimiter
     FROM used JOIN pg_type t USING (oid)`,
    [columns.map(column => column.type)],
  );
  const { rows: keys } = await client.query<{ primary: boolean; columns: string[] }>(
    `SELECT indisprimary AS primary,
            ARRAY(SELECT attname::text FROM generate_series(0, indnkeyatts - 1) i
                  JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[i] ORDER BY i) AS columns
     FROM pg_index WHERE indrelid = $1 AND indisunique AND indisvalid AND indimmediate
       AND indpred IS NULL AND indexprs IS NULL
     ORDER BY indisprimary DESC, indexrelid`,
    [oid],
  );
  const byOid = new Map(types.map(type => [type.oid, type]));
  return {
    oid,
    name,
    sql: quoteTable(name),
    columns: columns.map(column => ({
      name: column.name,
      type: typeOf(column.type, byOid),
      modifier: column.modifier,
      notNull: column.not_null && !triggers,
      hasDefault: column.has_default,
      generated: column.generated !== '',
      identityAlways: column.identity === 'a',
      collation: column.collation ?? undefined,
    })),
    primaryKey: keys.find(key => key.primary)?.columns,
    uniqueKeys: keys.map(key => key.columns),
  };
}

function typeOf(oid: number, types: ReadonlyMap<number, TypeRow>): PgType {
  const row = types.get(oid)!;
  return {
    oid,
    name: row.name,
    sql: row.sql,
    kind: row.kind,
    element: row.element === 0 ? undefined : typeOf(row.element, types),
    base: row.base === 0 ? undefined : typeOf(row.base, types),
    baseModifier: row.base_modifier,
    delimiter: row.delimiter,
  };
}

/** What a domain is made of, with the modifier that counts. */
export function baseOf(type: PgType, modifier: number): { type: PgType; modifier: number } {
  let at = { type, modifier };
  while (at.type.kind === 'd' && at.type.base) {
    at = { type: at.type.base, modifier: at.modifier >= 0 ? at.modifier : at.type.baseModifier };
  }
  return at;
}
