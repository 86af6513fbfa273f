// Partitions that come to a table which is captured under its own name. What is written to one from then on is streamed,
// and so are the rows of one that was made as a partition. What ATTACH PARTITION brings with it no change tells of: those
// rows are read, that partition alone (or told of, with snapshot: never).
//
// PostgreSQL does not keep when a partition was attached. But rows of the catalogue say which transaction wrote them: one
// that was made as a partition has its columns and its place in the tree from the same. A table that was made, filled and
// attached in one transaction has at its very beginning a row of an earlier command of that transaction than its place.
import { codeOf } from '../runtime/errors.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import type { TableName } from './definition.ts';
import { treeOf } from './publication.ts';
import { type Leaf, leafOf } from './snapshot-description.ts';
import { quoted, type Source, type SourceTable } from './source.ts';

export interface Attached {
  readonly table: SourceTable;
  readonly name: TableName;
  readonly leaf: Leaf;
}

export class Partitions {
  readonly #source: Source;
  readonly #lane: WriteLane;
  readonly #captureId: number;
  /** By the table's oid. */
  #known = new Map<number, ReadonlySet<number>>();

  constructor(source: Source, lane: WriteLane, captureId: number) {
    this.#source = source;
    this.#lane = lane;
    this.#captureId = captureId;
  }

  async load(): Promise<void> {
    const { rows } = await this.#lane.transaction(client =>
      client.query<{ table: string; leaves: string[] }>(
        `SELECT relation_id::text AS table, leaves::text[] FROM kafka.capture_partitions WHERE capture_id = $1`,
        [this.#captureId],
      ),
    );
    this.#known = new Map(rows.map(({ table, leaves }) => [Number(table), new Set(leaves.map(Number))]));
  }

  /** Before tables are read for the first time: what they have now is part of that. */
  async begin(tables: readonly SourceTable[]): Promise<void> {
    const unknown = tables.filter(({ oid }) => !this.#known.has(oid));
    for (const [table, leaves] of await this.#leavesOf(unknown)) await this.#note(table.oid, leaves);
  }

  /** Partitions that have come with rows, until they are `taken`. Those that came without are noted. */
  async attached(tables: readonly SourceTable[]): Promise<Attached[]> {
    const found: Attached[] = [];
    for (const [table, leaves] of await this.#leavesOf(tables)) {
      const known = this.#known.get(table.oid);
      const attached: Attached[] = [];
      for (const id of leaves) {
        const came = known?.has(id) ? undefined : await this.#cameWithRows(id);
        if (came) attached.push({ table, ...came });
      }
      const noted = leaves.filter(id => !attached.some(({ leaf }) => leaf.id === id));
      // One that is detached is forgotten: it may come again, with other rows.
      if (known === undefined || noted.length !== known.size || noted.some(id => !known.has(id)))
        await this.#note(table.oid, noted);
      found.push(...attached);
    }
    return found;
  }

  async taken({ table, leaf }: Attached): Promise<void> {
    await this.#note(table.oid, [...(this.#known.get(table.oid) ?? []), leaf.id]);
  }

  async #note(relationId: number, leaves: readonly number[]): Promise<void> {
    await this.#lane.transaction(client =>
      client.query(
        `INSERT INTO kafka.capture_partitions (capture_id, relation_id, leaves) VALUES ($1, $2, $3::text[]::oid[])
         ON CONFLICT (capture_id, relation_id) DO UPDATE SET leaves = excluded.leaves`,
        [this.#captureId, relationId, leaves.map(String)],
      ),
    );
    this.#known.set(relationId, new Set(leaves));
  }

  /** Of those that are partitioned. */
  async #leavesOf(tables: readonly SourceTable[]): Promise<[SourceTable, number[]][]> {
    if (tables.length === 0) return [];
    const { rows } = await this.#source.client.query<{ table: string; leaves: string[] }>(
      `SELECT c.oid::text AS table, ARRAY(
         SELECT l.oid::text FROM pg_class l WHERE l.oid IN ${treeOf('c.oid')} AND l.relkind = 'r') AS leaves
       FROM pg_class c WHERE c.oid = ANY ($1::text[]::oid[]) AND c.relkind = 'p'`,
      [tables.map(({ oid }) => String(oid))],
    );
    return rows.map(row => [tables.find(({ oid }) => oid === Number(row.table))!, row.leaves.map(Number)]);
  }

  /** undefined: no row of it is from before it was a partition of the table. */
  async #cameWithRows(id: number): Promise<Omit<Attached, 'table'> | undefined> {
    const { client } = this.#source;
    // System columns, as tableoid is, are never altered. The place of an ancestor in the tree may be older than the leaf.
    const { rows } = await client.query<TableName & { made: string; placed: string | null; later: boolean }>(
      `SELECT n.nspname::text AS schema, l.relname::text AS name, a.xmin::text AS made, p.placed, p.later
       FROM pg_class l JOIN pg_namespace n ON n.oid = l.relnamespace
         JOIN pg_attribute a ON a.attrelid = l.oid AND a.attname = 'tableoid' AND a.attnum < 0
         CROSS JOIN LATERAL (
           SELECT bool_or(CASE WHEN i.inhrelid = l.oid THEN i.xmin <> a.xmin ELSE age(i.xmin) < age(a.xmin) END) AS later,
                  max(i.cmin::text::int8) FILTER (WHERE i.xmin = a.xmin)::text AS placed
           FROM pg_partition_ancestors(l.oid) t JOIN pg_inherits i ON i.inhrelid = t.relid) p
       WHERE l.oid = $1::oid`,
      [String(id)],
    );
    const found = rows[0];
    if (found === undefined) return undefined;
    const { schema, name, made, placed, later } = found;
    const before = later ? '' : `WHERE ctid < '(1,0)' AND xmin = '${made}' AND cmin::text::int8 < ${placed ?? 0}`;
    try {
      const some = await client.query(`SELECT FROM ONLY ${quoted(found)} ${before} LIMIT 1`);
      const leaf = some.rowCount === 0 ? undefined : await leafOf(client, id);
      return leaf && { name: { schema, name }, leaf };
    } catch (error) {
      if (codeOf(error) === '42P01') return undefined; // it has gone
      if (codeOf(error) !== '42501') throw error;
      // What may not be read may have rows.
      return { name: { schema, name }, leaf: { id, filenode: 0, pages: 0, bytes: 0 } };
    }
  }
}
