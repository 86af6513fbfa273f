import assert from 'node:assert/strict';
import test from 'node:test';
import { createDatabase, onServer } from './database.ts';

test('a test database has schema kafka, is its own, and is gone when dropped', async () => {
  const [first, second, empty] = await Promise.all([
    createDatabase(),
    createDatabase(),
    createDatabase({ empty: true }),
  ]);
  const count = async ({ pool }: typeof first) =>
    (await pool.query('SELECT count(*)::int AS n FROM kafka.topics')).rows[0].n;
  await first.pool.query(`INSERT INTO kafka.topics (name, partition_count) VALUES ('a', 1)`);
  assert.equal(await count(first), 1);
  assert.equal(await count(second), 0);
  assert.equal((await empty.pool.query(`SELECT to_regnamespace('kafka') AS schema`)).rows[0].schema, null);
  const name = new URL(first.url).pathname.slice(1);
  await Promise.all([first, second, empty].map(database => database.drop()));
  const found = await onServer(client => client.query('SELECT FROM pg_database WHERE datname = $1', [name]));
  assert.equal(found.rowCount, 0);
});
