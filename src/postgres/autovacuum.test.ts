import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { setAutovacuum } from './autovacuum.ts';

let database: TestDatabase;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

async function options(): Promise<{ name: string; eager: boolean; fillfactor: boolean; version: string }[]> {
  const { rows } = await database.pool.query(
    `SELECT relname AS name, coalesce(reloptions @> '{autovacuum_vacuum_threshold=1000}', false) AS eager,
            coalesce(reloptions @> '{fillfactor=50}', false) AS fillfactor, xmin::text AS version
     FROM pg_class WHERE relnamespace = 'kafka'::regnamespace
       AND relname IN ('consumer_groups', 'consumer_offsets', 'partitions', 'producer_snapshots') ORDER BY relname`,
  );
  return rows;
}

test('hot tables are vacuumed eagerly or as the server has it, and their other options stay', async () => {
  await setAutovacuum(database.pool, true);
  const first = await options();
  assert.equal(first.length, 4);
  assert.ok(first.every(({ eager }) => eager));
  await setAutovacuum(database.pool, true);
  assert.deepEqual(await options(), first, 'nothing is written a second time');
  await setAutovacuum(database.pool, false);
  const last = await options();
  assert.ok(last.every(({ eager }) => !eager));
  assert.deepEqual(
    last.map(({ fillfactor }) => fillfactor),
    first.map(({ fillfactor }) => fillfactor),
  );
});
