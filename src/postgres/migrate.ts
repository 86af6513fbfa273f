// Brings schema kafka to the newest version: migrations/NNNN_name.sql in order, each once, in one transaction
// under an advisory lock, so that two processes starting at once do not both run them. A migration that was
// applied must never change: its SHA-256 is kept and compared (drift).
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { inTransaction, type Pool } from './pool.ts';

const directory = fileURLToPath(new URL('../../migrations/', import.meta.url));
// Any constant will do, as long as every version of Millrace takes the same one.
const migrationLock = 5_742_861_190n;

export class MigrationError extends Error {
  override name = 'MigrationError';
}

interface Migration {
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

async function readMigrations(): Promise<Migration[]> {
  const names = (await readdir(directory)).filter(name => /^\d{4}_\w+\.sql$/.test(name)).sort();
  return Promise.all(
    names.map(async name => {
      const sql = await readFile(directory + name, 'utf8');
      return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
    }),
  );
}

/** Returns the names of the migrations that were applied now. Throws MigrationError on drift or a newer schema. */
export async function migrate(pool: Pool): Promise<string[]> {
  const migrations = await readMigrations();
  return inTransaction(pool, async client => {
    await client.query('SELECT pg_advisory_xact_lock($1)', [migrationLock]);
    // Not CREATE SCHEMA IF NOT EXISTS: that asks for CREATE on the database even where the schema exists.
    const { rows: schema } = await client.query(`SELECT to_regnamespace('kafka') IS NOT NULL AS there`);
    if (!schema[0].there) await client.query('CREATE SCHEMA kafka');
    await client.query(`CREATE TABLE IF NOT EXISTS kafka.migrations (
      name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`);
    const { rows } = await client.query<{ name: string; checksum: string }>(
      'SELECT name, checksum FROM kafka.migrations',
    );
    const applied = new Map(rows.map(row => [row.name, row.checksum]));
    for (const name of applied.keys()) {
      if (!migrations.some(migration => migration.name === name)) {
        throw new MigrationError(
          `the database has migration ${name}, which this version of Millrace does not know; start the version that made it, or a newer one`,
        );
      }
    }
    const done: string[] = [];
    for (const { name, sql, checksum } of migrations) {
      const before = applied.get(name);
      if (before === checksum) continue;
      if (before !== undefined) {
        throw new MigrationError(
          `migration ${name} has changed since it was applied to this database; restore the file`,
        );
      }
      await client.query(sql);
      await client.query('INSERT INTO kafka.migrations (name, checksum) VALUES ($1, $2)', [name, checksum]);
      done.push(name);
    }
    return done;
  });
}
