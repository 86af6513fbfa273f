// A table as a snapshot reads it: as the stream describes it, what it is read by, and how large it is.
import type pg from 'pg';
import type { Relation, ReplicaIdentity } from '../postgres/pgoutput.ts';
import type { TableName } from './definition.ts';
import { quoted } from './source.ts';

export interface Described {
  readonly relation: Relation;
  /** Of the primary key, or of the unique index that is the replica identity; empty: it is read by ctid. */
  readonly keyColumns: readonly string[];
  readonly keyTypes: readonly string[];
  readonly partitioned: boolean;
  /** The planner's; 0 for a table that was never analyzed. */
  readonly estimatedRows: number;
  /** The publication's, as an expression. */
  readonly filter: string | null;
}

/** A table, or a partition, that has pages of its own. */
export interface Leaf {
  readonly id: number;
  /** Changes when its rows are written anew: VACUUM FULL, TRUNCATE, ALTER TABLE. */
  readonly filenode: number;
  readonly pages: number;
  /** With what is stored out of line. */
  readonly bytes: number;
}

/** Throws SQLSTATE 42P01 where there is no such table. `client` gives everything as text. */
export async function describeTable(
  client: pg.Client,
  version: number,
  publication: string,
  table: TableName,
): Promise<Described> {
  // Column lists and row filters of publications are from 15 on, and do not hold where its whole schema is published.
  const listed = version >= 150_000;
  const named = `a.attnum = ANY (r.prattrs::int2[])`;
  const column =
    version >= 180_000
      ? `CASE WHEN r.prattrs IS NULL THEN a.attgenerated = '' OR a.attgenerated = p.pubgencols AND p.pubgencols = 's' ELSE ${named} END`
      : `a.attgenerated = '' ${listed ? `AND (r.prattrs IS NULL OR ${named})` : ''}`;
  const member = listed
    ? `LEFT JOIN pg_publication p ON p.pubname = $2
     LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid AND NOT EXISTS (
       SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)`
    : 'LEFT JOIN pg_publication p ON p.pubname = $2';
  const { rows } = await client.query<Record<string, string>>(
    `SELECT c.oid::text, c.relkind::text AS kind, c.relreplident::text AS identity, ${listed ? 'pg_get_expr(r.prqual, r.prrelid)' : 'NULL'} AS filter,
            (SELECT greatest(0, sum(r.reltuples))::int8 FROM pg_class r
             WHERE r.oid = c.oid OR r.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf)) AS estimated,
            a.attname::text AS name, a.atttypid::text AS type, a.atttypmod AS modifier,
            format_type(a.atttypid, a.atttypmod) AS type_name,
            array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum) AS place
     FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     LEFT JOIN LATERAL (
       SELECT indkey, indnkeyatts FROM pg_index
       WHERE indrelid = c.oid AND (indisprimary OR indisreplident AND c.relreplident = 'i')
       ORDER BY indisprimary DESC LIMIT 1) i ON true
     ${member}
     WHERE c.oid = $1::regclass AND ${column}
     ORDER BY a.attnum`,
    [quoted(table), publication],
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
        isKey: row.place !== null || first?.identity === 'f',
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

const identities: Readonly<Record<string, ReplicaIdentity>> = { d: 'default', n: 'nothing', f: 'full', i: 'index' };

/** Where the rows of a table are; in the order of their names, so that it is the same each time. */
export async function leavesOf(client: pg.Client, relationId: number): Promise<Leaf[]> {
  return readLeaves(
    client,
    `l.relkind = 'r' AND (l.oid = $1::oid OR l.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass) WHERE isleaf))`,
    relationId,
  );
}

/** One partition; undefined where it is gone. */
export async function leafOf(client: pg.Client, id: number): Promise<Leaf | undefined> {
  return (await readLeaves(client, 'l.oid = $1::oid', id))[0];
}

async function readLeaves(client: pg.Client, which: string, oid: number): Promise<Leaf[]> {
  const { rows } = await client.query<Record<string, string>>(
    `SELECT l.oid::text AS id, pg_relation_filenode(l.oid)::text AS filenode,
            pg_relation_size(l.oid) / current_setting('block_size')::int AS pages, pg_table_size(l.oid) AS bytes
     FROM pg_class l WHERE ${which} ORDER BY l.relname, l.oid`,
    [String(oid)],
  );
  return rows.map(({ id, filenode, pages, bytes }) => ({
    id: Number(id),
    filenode: Number(filenode ?? 0),
    pages: Number(pages),
    bytes: Number(bytes),
  }));
}
