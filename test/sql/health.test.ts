// The operator's views, asked by a role that owns schema kafka and has no other right.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { migrate } from '../../src/postgres/migrate.ts';
import { openPool, type Pool } from '../../src/postgres/pool.ts';
import { createDatabase, onServer, type TestDatabase } from '../database.ts';
import { plainBatch } from './foreign-encoder.ts';
import { append, createTopic, openSegment } from './log-rig.ts';

const owner = `owner_${randomBytes(6).toString('hex')}`;
let database: TestDatabase;
let pool: Pool;

before(async () => {
  database = await createDatabase({ empty: true });
  await database.pool.query(`CREATE ROLE ${owner} LOGIN PASSWORD '${owner}'`);
  await database.pool.query(`CREATE SCHEMA kafka AUTHORIZATION ${owner}`);
  // A session of its own: under SET ROLE the statements of the superuser's other sessions would be hidden.
  const url = new URL(database.url);
  url.username = owner;
  url.password = owner;
  pool = openPool(url.href, { max: 5, applicationName: 'millrace test' });
  await migrate(pool);
});
after(async () => {
  await pool.end();
  await database.drop();
  await onServer(client => client.query(`DROP ROLE ${owner}`));
});

test('such a role makes the schema, writes the log and reads it', async () => {
  const topic = await createTopic(pool, 'plain', 1);
  const records = await plainBatch(0n, 3);
  await append(pool, await openSegment(pool, topic), [{ partition: 0, baseOffset: 0n, lastOffset: 2n, records }]);
  const { rows } = await pool.query(`SELECT current_user AS me, count(*)::int FROM kafka.messages`);
  assert.deepEqual(rows, [{ me: owner, count: 3 }]);
});

test('kafka.table_health tells dead rows, vacuums and bloat, segments in one row', { timeout: 300_000 }, async () => {
  const topic = await createTopic(pool, 'churned', 1);
  await openSegment(pool, topic);
  await pool.query(`INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset)
    SELECT 'group ' || i, ${topic}, 0, 0 FROM generate_series(1, 20000) i`);
  await pool.query(`DELETE FROM kafka.consumer_offsets WHERE group_id LIKE '%7%'`);
  const client = await pool.connect();
  try {
    const { rows: counted } = await client.query('SELECT count(*)::int FROM kafka.consumer_offsets');
    const offsets = `SELECT live_rows::int, bytes::int, bloat_bytes::int
      FROM kafka.table_health WHERE "table" = 'consumer_offsets' AND last_vacuum IS NOT NULL AND last_analyze IS NOT NULL`;
    // What a session did to a table reaches the statistics a little after, up to 14 even after a VACUUM that followed.
    let row = (await client.query(offsets)).rows[0];
    while (row?.live_rows !== counted[0].count) {
      await client.query('VACUUM ANALYZE kafka.consumer_offsets');
      row = (await client.query(offsets)).rows[0];
    }
    const gone = 1 - counted[0].count / 20_000;
    const { rows: heap } = await client.query(`SELECT pg_relation_size('kafka.consumer_offsets')::int AS bytes`);
    assert.ok(Math.abs(row.bloat_bytes / heap[0].bytes - gone) < 0.1, `${row.bloat_bytes} of ${heap[0].bytes}`);
    const { rows: segments } = await client.query(
      `SELECT tables::int FROM kafka.table_health WHERE "table" = 'segment_*'`,
    );
    assert.deepEqual(segments, [{ tables: 2 }]);
  } finally {
    client.release();
  }
});

test('kafka.wal_health is one row', async () => {
  const { rows } = await pool.query(
    `SELECT lsn::text, wal_bytes > 0 AS written, bytes_per_second >= 0 AS rate, checkpoints_timed >= 0 AS timed,
            checkpoints_requested >= 0 AS requested, max_wal_size > 0 AS bounded, retained_by_slots >= 0 AS retained
     FROM kafka.wal_health`,
  );
  assert.equal(rows.length, 1);
  const { lsn, ...told } = rows[0];
  assert.match(lsn, /^[0-9A-F]+\/[0-9A-F]+$/);
  assert.ok(
    Object.values(told).every(value => value === true),
    JSON.stringify(rows[0]),
  );
});

test('kafka.slow_queries shows what runs now, where pg_stat_statements is missing', { timeout: 300_000 }, async () => {
  const running = await pool.connect();
  try {
    await running.query('SELECT pg_advisory_lock(1)');
    const blocked = await pool.connect();
    try {
      const waiting = blocked.query('SELECT pg_advisory_lock(1)');
      const find = `SELECT source, waits_for, cardinality(blocked_by) AS blockers, running_ms >= 0 AS timed
        FROM kafka.slow_queries WHERE query = 'SELECT pg_advisory_lock(1)' AND waits_for LIKE 'Lock:%'`;
      let found = await pool.query(find);
      while (found.rowCount === 0) found = await pool.query(find);
      assert.deepEqual(found.rows, [
        { source: 'pg_stat_activity', waits_for: 'Lock: advisory', blockers: 1, timed: true },
      ]);
      await running.query('SELECT pg_advisory_unlock(1)');
      await waiting;
      await blocked.query('SELECT pg_advisory_unlock(1)');
    } finally {
      blocked.release();
    }
  } finally {
    running.release();
  }
});

test('kafka.slow_queries asks pg_stat_statements where it is there', async t => {
  const { rows } = await database.pool.query<{ preload: string }>(
    `SELECT current_setting('shared_preload_libraries') AS preload`,
  );
  const { rowCount } = await database.pool.query(
    `SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'`,
  );
  if (rowCount === 0) return t.skip('this PostgreSQL comes without pg_stat_statements');
  await database.pool.query('CREATE EXTENSION pg_stat_statements SCHEMA public');
  await pool.query('SELECT count(*) FROM kafka.topics');
  const { rows: sources } = await pool.query<{ source: string }>('SELECT DISTINCT source FROM kafka.slow_queries');
  const expected = rows[0]!.preload.includes('pg_stat_statements') ? ['pg_stat_statements'] : [];
  // Made but not loaded: no error, and what runs now (nothing, or another connection of this test).
  assert.deepEqual(
    sources.map(({ source }) => source).filter(source => source !== 'pg_stat_activity'),
    expected,
  );
});
