// A database of its own for a test file: cloned from a template that has every migration applied, so that it
// costs a few milliseconds. The server is the one that scripts/test.mjs started (MILLRACE_TEST_DATABASE_URL).
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import pg from 'pg';
import { migrate } from '../src/postgres/migrate.ts';
import { openPool, type Pool } from '../src/postgres/pool.ts';

const migrations = new URL('../migrations/', import.meta.url);
const templateLock = 5_742_861_199n; // not one of Millrace's own

export interface TestDatabase {
  readonly url: string;
  readonly pool: Pool;
  /** Ends the pool and drops the database, whoever is still connected to it. */
  drop(): Promise<void>;
}

/** The superuser URL of the server under test. */
export function serverUrl(): string {
  const url = process.env.MILLRACE_TEST_DATABASE_URL;
  if (!url) throw new Error('MILLRACE_TEST_DATABASE_URL is not set; run the tests with: npm test -- path/of.test.ts');
  return url;
}

/** `empty`: without schema kafka, for tests of the migrations themselves. */
export async function createDatabase(options: { readonly empty?: boolean } = {}): Promise<TestDatabase> {
  const name = `millrace_${randomBytes(6).toString('hex')}`;
  const template = options.empty ? 'template0' : await ensureTemplate();
  await onServer(client => client.query(`CREATE DATABASE ${name} TEMPLATE ${template}`));
  const url = urlOf(name);
  const pool = openPool(url, { max: 10, applicationName: 'millrace test' });
  return {
    url,
    pool,
    async drop() {
      await pool.end();
      await onServer(async client => {
        // A database is not dropped while one of its slots is read; its slots go with it.
        await client.query(
          'SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE database = $1 AND active',
          [name],
        );
        await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
      });
    },
  };
}

export function urlOf(database: string): string {
  const url = new URL(serverUrl());
  url.pathname = `/${database}`;
  return url.href;
}

/** Runs `work` on a superuser connection to the server's own database. */
export async function onServer<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: serverUrl() });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Named after what the migrations say, so that an edited migration makes a new template. */
async function ensureTemplate(): Promise<string> {
  const hash = createHash('sha256');
  const files = readdirSync(migrations).filter(file => file.endsWith('.sql'));
  for (const file of files.sort()) hash.update(file).update(readFileSync(new URL(file, migrations)));
  const template = `millrace_template_${hash.digest('hex').slice(0, 16)}`;
  await onServer(async client => {
    await client.query('SELECT pg_advisory_lock($1)', [templateLock]);
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [template]);
    if (rowCount) return;
    // Under another name until it is whole: a test run that is killed must not leave half a template.
    await client.query('DROP DATABASE IF EXISTS millrace_template_new WITH (FORCE)');
    await client.query(`CREATE DATABASE millrace_template_new TEMPLATE template0 ENCODING 'UTF8'`);
    const pool = openPool(urlOf('millrace_template_new'), { max: 1, applicationName: 'millrace test template' });
    try {
      await migrate(pool);
    } finally {
      await pool.end();
    }
    await waitUntilUnused(client, 'millrace_template_new');
    await client.query(`ALTER DATABASE millrace_template_new RENAME TO ${template}`);
  });
  return template;
}

/** The server notices the end of a connection a little after the client has closed it. */
async function waitUntilUnused(client: pg.Client, database: string): Promise<void> {
  const inUse = 'SELECT FROM pg_stat_activity WHERE datname = $1';
  while ((await client.query(inUse, [database])).rowCount) await client.query('SELECT pg_sleep(0.01)');
}
