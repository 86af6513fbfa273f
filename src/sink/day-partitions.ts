// A target table in a partition for each day (UTC): made ahead of time, moved out of the default partition for days that
// come late or early, dropped when they are older than is kept. Each step is a transaction that waits for no lock for long:
// what could not be done now is done at the next round.
import type { ClientBase } from 'pg';
import { quote, quoteTable } from './catalogue.ts';
import type { TableName } from './definition.ts';
import { MappingError } from './mapping.ts';

export interface DayPartitions {
  /** What the table is partitioned by: a date, timestamp or timestamptz. */
  readonly column: string;
  /** Days before today that stay; undefined: all. */
  readonly keepDays: number | undefined;
  /** Days after today that are there already. */
  readonly aheadDays: number;
}

interface Parent {
  readonly fallback: string | undefined;
  readonly days: readonly string[];
}

export const dayMs = 86_400_000;
const lockTimeout = `SET LOCAL lock_timeout = '5s'`;
/** Days that are moved out of the default partition in a round. */
const mostMoved = 100;
const maxNameBytes = 63;

/** Brings the partitions to where they should be at `now`, ms. Throws MappingError where the table is not so partitioned. */
export async function rollDays(client: ClientBase, name: TableName, days: DayPartitions, now: number): Promise<void> {
  const table = quoteTable(name);
  const prefix = prefixOf(name);
  const today = Math.floor(now / dayMs) * dayMs;
  const oldest = days.keepDays === undefined ? Number.NEGATIVE_INFINITY : today - days.keepDays * dayMs;
  const before = await readParent(client, name, days.column);
  let fallback = before.fallback;
  if (fallback === undefined) {
    fallback = quoteTable({ schema: name.schema, name: `${prefix}other` });
    await client.query(`CREATE TABLE IF NOT EXISTS ${fallback} PARTITION OF ${table} DEFAULT`);
  }
  const there = new Set(before.days);
  const wanted: number[] = [];
  for (let day = today - dayMs; day <= today + days.aheadDays * dayMs; day += dayMs) wanted.push(day);
  wanted.push(...(await daysIn(client, fallback, days.column)));
  for (const day of wanted) {
    const partition = `${prefix}${dayName(day)}`;
    if (day < oldest || there.has(partition)) continue;
    await addDay(client, { name, fallback, column: days.column }, partition, day);
    there.add(partition);
  }
  if (oldest === Number.NEGATIVE_INFINITY) return;
  for (const partition of before.days) {
    const old = Date.parse(partition.slice(prefix.length).replaceAll('_', '-')) < oldest;
    if (old) await dropPartition(client, quoteTable({ schema: name.schema, name: partition }));
  }
  await client.query(`DELETE FROM ${fallback} WHERE ${quote(days.column)} < $1::text::timestamptz`, [
    new Date(oldest).toISOString(),
  ]);
}

/** Of partitions' names; the day or "other" follows. Postgres cuts names off, so it is cut here. */
function prefixOf({ name }: TableName): string {
  let kept = name;
  while (Buffer.byteLength(kept) > maxNameBytes - '_2026_11_21'.length) kept = kept.slice(0, -1);
  return `${kept}_`;
}

const dayName = (day: number): string => new Date(day).toISOString().slice(0, 10).replaceAll('-', '_');

async function readParent(client: ClientBase, name: TableName, column: string): Promise<Parent> {
  const { rows } = await client.query<{ oid: number; fallback: string | null; column: string | null }>(
    `SELECT c.oid, (SELECT quote_ident(nspname) || '.' || quote_ident(d.relname)
                    FROM pg_class d JOIN pg_namespace n ON n.oid = d.relnamespace WHERE d.oid = partdefid) AS fallback,
            CASE WHEN partstrat = 'r' AND partnatts = 1 THEN
              (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = partattrs[0]) END AS column
     FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_partitioned_table p ON partrelid = c.oid
     WHERE nspname = $1 AND relname = $2`,
    [name.schema, name.name],
  );
  const found = rows[0];
  if (found?.column !== column) {
    throw new MappingError(
      `${quoteTable(name)} is not partitioned: make it PARTITION BY RANGE (${quote(column)}), or leave dailyPartitions out`,
    );
  }
  const pattern = `^${prefixOf(name).replaceAll(/[^a-zA-Z0-9_]/g, '.')}[0-9]{4}_[0-9]{2}_[0-9]{2}$`;
  const { rows: days } = await client.query<{ name: string }>(
    `SELECT relname AS name FROM pg_inherits JOIN pg_class ON oid = inhrelid
     WHERE inhparent = $1 AND relname ~ $2 ORDER BY 1`,
    [found.oid, pattern],
  );
  return { fallback: found.fallback ?? undefined, days: days.map(row => row.name) };
}

async function daysIn(client: ClientBase, fallback: string, column: string): Promise<number[]> {
  const { rows } = await client.query<{ day: string }>(
    `SELECT DISTINCT to_char(${quote(column)}::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day FROM ${fallback}
     WHERE ${quote(column)} >= '1970-01-01 00:00:00+00' AND ${quote(column)} < '9999-01-01 00:00:00+00'
     ORDER BY 1 DESC LIMIT ${mostMoved}`,
  );
  return rows.map(({ day }) => Date.parse(day));
}

/** With the rows of the day that the default partition has. Nobody writes there meanwhile; the other days go on. */
async function addDay(
  client: ClientBase,
  { name, fallback, column }: { name: TableName; fallback: string; column: string },
  partition: string,
  day: number,
): Promise<void> {
  const made = quoteTable({ schema: name.schema, name: partition });
  const [from, to] = [day, day + dayMs].map(at => `'${new Date(at).toISOString().replace('T', ' ').slice(0, 19)}+00'`);
  await inTransaction(client, async () => {
    await client.query(`LOCK TABLE ${fallback} IN ACCESS EXCLUSIVE MODE`);
    const { rows } = await client.query<{ list: string }>(
      `SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS list FROM pg_attribute
       WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`,
      [fallback],
    );
    const { list } = rows[0]!;
    await client.query(
      `CREATE TABLE ${made} (LIKE ${quoteTable(name)} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE)`,
    );
    await client.query(
      `WITH moved AS (
         DELETE FROM ${fallback} WHERE ${quote(column)} >= ${from} AND ${quote(column)} < ${to} RETURNING ${list})
       INSERT INTO ${made} (${list}) SELECT ${list} FROM moved`,
    );
    await client.query(`ALTER TABLE ${quoteTable(name)} ATTACH PARTITION ${made} FOR VALUES FROM (${from}) TO (${to})`);
  });
}

function dropPartition(client: ClientBase, partition: string): Promise<void> {
  return inTransaction(client, async () => {
    await client.query(`DROP TABLE ${partition}`);
  });
}

/** That waits for no lock for long. */
async function inTransaction(client: ClientBase, work: () => Promise<void>): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query(lockTimeout);
    await work();
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
}
