// What is changed between the database snapshot of a chunk and its mark in the WAL. The session that makes the marks is
// stopped (SIGSTOP) while a chunk is read, so that the moment lasts as long as a test needs it.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import pg from 'pg';
import { startPostgres } from '../own-postgres.ts';
import { type Event, type ShopStatus, SnapshotRig } from '../snapshot-rig.ts';

let rig: SnapshotRig;
let stopped: number | undefined;

beforeEach(async () => {
  rig = await SnapshotRig.open();
});

afterEach(async () => {
  if (stopped !== undefined) process.kill(stopped, 'SIGCONT');
  stopped = undefined;
  await rig.remove();
});

const query = (text: string) => rig.database.pool.query(text);
/** A chunk is 500 rows, and a second passes after each. */
const settings = { snapshotReaders: 1, snapshotRowsPerSecond: 500, partitions: 1 };

/** Makes changes when rows 501 to 1000 have been read, and are not yet marked. */
async function whileRead(table: string, changes: () => Promise<unknown>): Promise<void> {
  const sessions = `SELECT pid, clock_timestamp() AS now FROM pg_stat_activity
    WHERE application_name = 'millrace capture' AND backend_type = 'client backend' AND datname = current_database()`;
  await rig.halfWay(`public.${table}`, 500);
  const { rows } = await rig.database.pool.query<{ pid: number; now: Date }>(sessions);
  assert.equal(rows.length, 1);
  const { pid, now } = rows[0]!;
  process.kill(pid, 'SIGSTOP');
  stopped = pid;
  // After a second's pause the reader ends its next transaction.
  const read = `SELECT FROM pg_stat_activity WHERE application_name = 'millrace snapshot' AND datname = current_database()
    AND state = 'idle' AND query = 'COMMIT' AND query_start > $1`;
  await rig.until(
    async () => (await rig.database.pool.query(read, [now])).rowCount,
    count => count === 1,
    'read',
  );
  await changes();
  process.kill(pid, 'SIGCONT');
  stopped = undefined;
}

async function finished(table: string): Promise<Event[]> {
  await rig.complete();
  await rig.caughtUp();
  return rig.assertFolds(table);
}

const opsOf = (read: readonly Event[], id: number) =>
  read
    .filter(({ key }) => key === `{"id":${id}}`)
    .map(({ op }) => op)
    .join('');

test('rows that are changed, deleted, moved and made after they were read, and before they are placed', {
  timeout: 300_000,
}, async () => {
  await query(`
    CREATE TABLE items (id int PRIMARY KEY, version int);
    INSERT INTO items SELECT i, 0 FROM generate_series(1, 1600) i WHERE i <> 605`);
  await rig.start(settings);
  await whileRead('items', async () => {
    await query('UPDATE items SET version = 1 WHERE id IN (600, 100, 1500)');
    await query('DELETE FROM items WHERE id = 601');
    await query('UPDATE items SET id = 9000 WHERE id = 602');
    await query('UPDATE items SET id = 50000 - id WHERE id IN (101, 1501)');
    await query('INSERT INTO items VALUES (605, 1)');
    await query('DELETE FROM items WHERE id = 603; INSERT INTO items VALUES (603, 2)');
    await query('BEGIN; SAVEPOINT a; UPDATE items SET version = 3 WHERE id = 604; RELEASE a; COMMIT');
    await query('BEGIN; UPDATE items SET version = 4 WHERE id = 606; ROLLBACK');
  });
  const read = await finished('items');
  // What came first in the stream has the newest word: what was read of these rows is not in the topic.
  assert.deepEqual(
    [600, 601, 602, 603, 604, 605].map(id => opsOf(read, id)),
    ['u', 'd', 'd', 'dc', 'u', 'c'],
  );
  assert.deepEqual([opsOf(read, 606), opsOf(read, 607), opsOf(read, 100)], ['r', 'r', 'ru']);
});

test('a transaction that had not ended when the chunk was read, and began before', { timeout: 300_000 }, async () => {
  await query(`
    CREATE TABLE items (id int PRIMARY KEY, version int);
    INSERT INTO items SELECT i, 0 FROM generate_series(1, 1600) i`);
  await rig.start(settings);
  await rig.halfWay('public.items', 500);
  const client = await rig.database.pool.connect();
  try {
    await client.query('BEGIN');
    await client.query('UPDATE items SET version = 1 WHERE id = 700');
    await whileRead('items', async () => {
      await query('UPDATE items SET version = 1 WHERE id = 701');
      await client.query('COMMIT');
    });
  } finally {
    client.release();
  }
  const read = await finished('items');
  assert.deepEqual(
    [700, 701].map(id => opsOf(read, id)),
    ['u', 'u'],
  );
});

test('an update that leaves out a value stored out of line does not hide what was read of it', {
  timeout: 300_000,
}, async () => {
  await query(`
    CREATE TABLE documents (id int PRIMARY KEY, version int, body text);
    ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
    INSERT INTO documents SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 1200) i`);
  await rig.start(settings);
  await whileRead('documents', () => query('UPDATE documents SET version = 1 WHERE id IN (501, 600, 601, 1000)'));
  const read = await finished('documents');
  assert.deepEqual(
    [501, 600, 601, 1000, 602].map(id => opsOf(read, id)),
    ['ur', 'ur', 'ur', 'ur', 'r'],
  );
  assert.ok(
    read.some(({ op, data }) => op === 'u' && !('body' in data)),
    'the update has its value',
  );
});

test('one of several equal rows goes: the others stay', { timeout: 300_000 }, async () => {
  await query(`
    CREATE TABLE loose (n int); ALTER TABLE loose REPLICA IDENTITY FULL;
    INSERT INTO loose SELECT CASE WHEN i BETWEEN 600 AND 650 THEN 0 ELSE i END FROM generate_series(1, 1200) i`);
  await rig.start(settings);
  await whileRead('loose', async () => {
    await query('DELETE FROM loose WHERE ctid = (SELECT ctid FROM loose WHERE n = 0 LIMIT 1)');
    await query('INSERT INTO loose VALUES (700), (0)');
    await query('UPDATE loose SET n = 701 WHERE n = 702');
  });
  await finished('loose');
});

test('a table is emptied after some of it was read', { timeout: 300_000 }, async () => {
  await query(`
    CREATE TABLE items (id int PRIMARY KEY, version int);
    INSERT INTO items SELECT i, 0 FROM generate_series(1, 1600) i`);
  await rig.start(settings);
  await whileRead('items', () => query('TRUNCATE items; INSERT INTO items VALUES (600, 1), (2000, 1)'));
  const read = (await finished('items')).filter(({ op, data }) => op === 'r' && data.version === 0);
  assert.equal(read.length, 500, 'what was read before it was emptied');
});

test('a transaction that has been streamed, and that nobody sees yet, is waited for', {
  timeout: 120_000,
}, async () => {
  // Who asks for it waits for a standby that there is not, after its commit has been written and before it is seen.
  const postgres = await startPostgres({ synchronous_standby_names: 'nope', synchronous_commit: 'local' });
  await rig.remove();
  rig = await SnapshotRig.open(postgres.url);
  const writer = new pg.Client({ connectionString: postgres.url });
  await writer.connect();
  try {
    await rig.onSource(`CREATE TABLE items (id int PRIMARY KEY, v text); INSERT INTO items VALUES (1, 'old');
      CREATE TABLE others (id int PRIMARY KEY); INSERT INTO others VALUES (1)`);
    await rig.start({ snapshotReaders: 2, partitions: 1 });
    await rig.complete();
    await writer.query('SET synchronous_commit = on');
    const { rows } = await writer.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const held = writer.query(`UPDATE items SET v = 'new'`);
    await rig.until(
      () => rig.events('items'),
      events => events.at(-1)?.data.v === 'new',
      'streamed',
    );
    await fetch(`${rig.millrace.http}/api/captures/shop/resnapshot?table=public.*`, { method: 'POST' });
    const isRead = ({ snapshots }: ShopStatus) =>
      snapshots.some(({ table, state }) => table === 'public.others' && state === 'done');
    await rig.until(() => rig.status(), isRead, 'read');
    await rig.onSource('SELECT pg_cancel_backend($1)', [rows[0]!.pid]);
    await held;
    await rig.complete();
    await rig.caughtUp();
    assert.equal((await rig.assertFolds('items')).at(-1)!.op, 'r');
  } finally {
    await writer.end();
    await postgres.remove();
  }
});
