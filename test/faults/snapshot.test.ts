// Snapshots on a real server, while everything is written to: the fold of each topic is its table.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { type ShopStatus, SnapshotRig, writing } from '../snapshot-rig.ts';

let rig: SnapshotRig;

beforeEach(async () => {
  rig = await SnapshotRig.open();
});

afterEach(() => rig.remove());

/** Writes to all tables until it is told to end. One writer, so that nobody's order of locks makes a deadlock. */
function workload(): { end(): Promise<number> } {
  const random = (below: number) => Math.floor(Math.random() * below);
  return writing(rig.database.url, async (client, n) => {
    await client.query('BEGIN');
    await client.query('INSERT INTO a VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET version = a.version + 1', [
      random(12_000),
      n,
    ]);
    await client.query('DELETE FROM a WHERE id = $1', [random(12_000)]);
    await client.query('UPDATE a SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM a WHERE id = $2)', [
      random(12_000),
      12_000 + n,
    ]);
    await client.query('UPDATE b SET note = $2 WHERE part = $1', [String(random(300)), `note ${n}`]);
    if (n % 97 === 96) await client.query('TRUNCATE c');
    await client.query('INSERT INTO c VALUES ($1, $2) ON CONFLICT DO NOTHING', [random(6000), n]);
    await client.query(n % 9 === 4 ? 'ROLLBACK' : 'COMMIT');
  });
}

/** Chunks of 3,000 rows, a second each. */
const slowly = { snapshotRowsPerSecond: 3000 };

async function makeTables(): Promise<void> {
  await rig.database.pool.query(`
    CREATE TABLE a (id int PRIMARY KEY, version int NOT NULL);
    CREATE TABLE b (part text, n int, note text, PRIMARY KEY (part, n));
    CREATE TABLE c (id int PRIMARY KEY, n int);
    CREATE TABLE empty (id int PRIMARY KEY);
    INSERT INTO a SELECT i, 0 FROM generate_series(0, 11999) i;
    INSERT INTO b SELECT (i % 300)::text, i, 'é "quoted" ' || i FROM generate_series(1, 6000) i;
    INSERT INTO c SELECT i, 0 FROM generate_series(0, 5999) i;
    ANALYZE;
  `);
}

test('tables are read while they change: each topic folds to its table', { timeout: 300_000 }, async () => {
  await makeTables();
  const writing = workload();
  await rig.start(slowly);
  const { snapshots } = await rig.complete();
  await writing.end();
  await rig.caughtUp();
  const a = await rig.assertFolds('a');
  await rig.assertFolds('b');
  await rig.assertFolds('c');
  assert.deepEqual(await rig.events('empty'), []);
  const read = a.filter(({ op }) => op === 'r').map(({ key }) => key);
  assert.equal(new Set(read).size, read.length, 'a row is read once');
  assert.ok(read.length > 6000);
  assert.ok(snapshots.find(({ table }) => table === 'public.a')!.rows >= read.length);

  // Read again on request, beside the stream.
  const again = workload();
  const { status: code } = await fetch(`${rig.millrace.http}/api/captures/shop/resnapshot?table=public.a`, {
    method: 'POST',
  });
  assert.equal(code, 202);
  await rig.complete();
  await again.end();
  await rig.caughtUp();
  const after = await rig.assertFolds('a');
  assert.ok(after.filter(({ op }) => op === 'r').length > read.length + 6000);
});

test('killed again and again while it reads, it goes on where it was', { timeout: 300_000 }, async () => {
  await makeTables();
  const writing = workload();
  let begun = 0;
  await rig.start(slowly);
  for (let round = 0; round < 4; round++) {
    await rig.until(
      () => rig.status(),
      ({ state }) => state === 'streaming',
      'streaming',
    );
    await new Promise(resolve => setTimeout(resolve, Math.random() * 1500)); // when to kill, not what to wait for
    const { snapshots } = await rig.status();
    if (snapshots.some(({ state }) => state !== 'done')) begun++;
    await rig.millrace.stop('SIGKILL');
    await rig.start(slowly);
  }
  await rig.complete();
  await writing.end();
  await rig.caughtUp();
  const a = await rig.assertFolds('a');
  await rig.assertFolds('b');
  await rig.assertFolds('c');
  const read = a.filter(({ op }) => op === 'r').map(({ key }) => key);
  assert.equal(new Set(read).size, read.length, 'a row is read once');
  assert.ok(begun >= 2, `killed ${begun} times while it read`);
});

test('a table without a key is read in one piece; what is never asked for is not read', {
  timeout: 300_000,
}, async () => {
  await rig.database.pool.query(`
    CREATE TABLE loose (n int); ALTER TABLE loose REPLICA IDENTITY FULL;
    INSERT INTO loose SELECT i % 100 FROM generate_series(1, 25000) i;
  `);
  await rig.start();
  await rig.complete();
  await rig.database.pool.query('DELETE FROM loose WHERE ctid IN (SELECT ctid FROM loose LIMIT 10)');
  await rig.caughtUp();
  const read = await rig.events('loose');
  const count = (wanted: string) => read.filter(({ op }) => op === wanted).length;
  assert.deepEqual([count('r'), count('d'), count('c')], [25_000, 10, 0]);
});

test('a transaction that wrote to a table before it was captured is waited for', { timeout: 300_000 }, async () => {
  await rig.database.pool.query('CREATE TABLE items (id int PRIMARY KEY)');
  await rig.start();
  await rig.complete();
  await rig.millrace.stop();
  await rig.database.pool.query(`
    CREATE TABLE keyed (id int PRIMARY KEY); INSERT INTO keyed VALUES (1);
    CREATE TABLE loose (id int); ALTER TABLE loose REPLICA IDENTITY FULL; INSERT INTO loose VALUES (1)`);
  const client = await rig.database.pool.connect();
  await client.query('BEGIN');
  await client.query('INSERT INTO keyed VALUES (2)');
  await client.query('INSERT INTO loose VALUES (2)');
  await rig.start();
  const isCaptured = ({ tables }: ShopStatus) => tables.includes('public.keyed') && tables.includes('public.loose');
  await rig.until(() => rig.status(), isCaptured, 'captured');
  // Of a table without a key its changes wait for its reading.
  await rig.database.pool.query('INSERT INTO keyed VALUES (3); INSERT INTO loose VALUES (3)');
  await client.query('COMMIT');
  client.release();
  await rig.complete();
  await rig.caughtUp();
  await rig.assertFolds('keyed');
  await rig.assertFolds('loose');
});

test('never: changes alone', { timeout: 300_000 }, async () => {
  await rig.database.pool.query('CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)');
  await rig.start({ snapshot: 'never' });
  await rig.until(
    () => rig.status(),
    ({ state }) => state === 'streaming',
    'streaming',
  );
  await rig.database.pool.query('INSERT INTO items VALUES (2)');
  await rig.caughtUp();
  assert.deepEqual(
    (await rig.events('items')).map(({ op, data }) => [op, data.id]),
    [['c', 2]],
  );
});

test('only: the rows, in Debezium’s envelope; then it ends and lets its slot go', { timeout: 300_000 }, async () => {
  await rig.database.pool.query(
    `CREATE TABLE items (id int PRIMARY KEY, note text); INSERT INTO items VALUES (1, 'tea'), (2, NULL)`,
  );
  await rig.start({ snapshot: 'only', format: 'debezium', partitions: 1 });
  await rig.until(
    () => rig.status(),
    ({ state }) => state === 'done',
    'done',
  );
  const { rows } = await rig.database.pool.query<{ value: string }>(
    `SELECT convert_from(value, 'UTF8') AS value FROM kafka.messages WHERE topic = 'shop.public.items' ORDER BY partition_offset`,
  );
  const envelopes = rows.map(({ value }) => JSON.parse(value));
  assert.deepEqual(
    envelopes.map(({ op, before, after, source }) => [op, before, after, source.snapshot]),
    [
      ['r', null, { id: 1, note: 'tea' }, 'true'],
      ['r', null, { id: 2, note: null }, 'last'],
    ],
  );
  const slots = async () =>
    (await rig.database.pool.query('SELECT FROM pg_replication_slots WHERE slot_name = $1', [rig.slot])).rowCount;
  assert.equal(await slots(), 0);
  await rig.millrace.stop();
  await rig.start({ snapshot: 'only', format: 'debezium', partitions: 1 });
  await rig.until(
    () => rig.status(),
    ({ state }) => state === 'done',
    'done',
  );
  assert.equal(await slots(), 0);
});

test('when_needed: a slot that is lost means that the tables are read again', { timeout: 300_000 }, async () => {
  await rig.database.pool.query('CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)');
  await rig.start({ snapshot: 'when_needed' });
  await rig.complete();
  await rig.millrace.stop();
  await rig.database.pool.query('SELECT pg_drop_replication_slot($1)', [rig.slot]);
  await rig.database.pool.query('INSERT INTO items VALUES (2)');
  await rig.start({ snapshot: 'when_needed' });
  await rig.complete();
  await rig.assertFolds('items');
  assert.equal((await rig.events('items')).length, 3);
});
