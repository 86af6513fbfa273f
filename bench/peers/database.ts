// The Postgres that Millrace, the row design and raw COPY share in a run: one server, one set of settings.
import pg from 'pg';

/** Settings that decide what a commit costs and promises; printed with every result. */
const decisive = [
  'server_version',
  'fsync',
  'synchronous_commit',
  'full_page_writes',
  'wal_level',
  'wal_compression',
  'wal_sync_method',
  'shared_buffers',
  'wal_buffers',
  'max_wal_size',
  'checkpoint_timeout',
  'checkpoint_completion_target',
  'commit_delay',
  'autovacuum',
];

export async function query<T extends pg.QueryResultRow>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url, application_name: 'millrace-bench' });
  await client.connect();
  try {
    return (await client.query<T>(sql)).rows;
  } finally {
    await client.end();
  }
}

/** Another database on the same server. */
export function databaseUrl(url: string, database: string): string {
  const other = new URL(url);
  other.pathname = `/${database}`;
  return other.href;
}

export async function createDatabase(url: string, database: string): Promise<string> {
  await query(url, `DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
  await query(url, `CREATE DATABASE ${database}`);
  return databaseUrl(url, database);
}

export async function walPosition(url: string): Promise<number> {
  const [row] = await query<{ at: string }>(url, `SELECT pg_current_wal_insert_lsn() - '0/0' AS at`);
  return Number(row!.at);
}

/** Bytes on disk of the tables that a condition on pg_class c and pg_namespace n chooses, indexes and TOAST included. */
export async function tableBytes(url: string, condition: string): Promise<number> {
  const [row] = await query<{ bytes: string | null }>(
    url,
    `SELECT sum(pg_total_relation_size(c.oid)) AS bytes FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
      WHERE relkind = 'r' AND ${condition}`,
  );
  return Number(row!.bytes ?? 0);
}

export async function describePostgres(url: string): Promise<Record<string, string>> {
  const list = decisive.map(name => `'${name}'`).join(',');
  const rows = await query<{ name: string; value: string }>(
    url,
    `SELECT name, current_setting(name) AS value FROM pg_settings WHERE name IN (${list}) ORDER BY name`,
  );
  return Object.fromEntries(rows.map(({ name, value }) => [`postgres.${name}`, value]));
}
