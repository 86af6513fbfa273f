// One table read by several sessions, by key and by ctid, while its rows move, go and come: the fold of its topic is it.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { type Event, SnapshotRig, writing } from '../snapshot-rig.ts';

let rig: SnapshotRig;

beforeEach(async () => {
  rig = await SnapshotRig.open();
});

afterEach(() => rig.remove());

const random = (below: number) => Math.floor(Math.random() * below);
const query = (text: string) => rig.database.pool.query(text);

/** Rows that two or more sessions have read some of, seen while they read. */
async function readTogether(table: string): Promise<void> {
  const pieces = async () =>
    (
      await rig.database.pool.query(
        'SELECT FROM kafka.capture_snapshot_pieces WHERE table_name = $1 AND row_count > 0 AND NOT done',
        [table],
      )
    ).rowCount!;
  await rig.until(pieces, count => count >= 2, `read by two at once`);
}

/** Chunks of 2,000 rows, a second each: pieces are 2,400 to 6,000 rows on pages that are nearly empty, or of long rows. */
const sessions = { snapshotReaders: 4, snapshotRowsPerSecond: 2000 };
const rows = 12_000;

test('sessions read ranges of one table’s key at the same time', { timeout: 300_000 }, async () => {
  await query(`
    CREATE TABLE wide ("Part" text, n int, pad text, PRIMARY KEY ("Part", n)) WITH (autovacuum_enabled = off, fillfactor = 20);
    INSERT INTO wide SELECT chr(65 + i % 7), i, repeat('é', 150) FROM generate_series(1, ${rows}) i;
    ANALYZE wide`);
  const writer = writing(rig.database.url, async client => {
    const n = random(rows);
    await client.query(`UPDATE wide SET pad = pad || 'x' WHERE n = $1 AND "Part" = $2`, [
      n,
      String.fromCharCode(65 + (n % 7)),
    ]);
    await client.query(`DELETE FROM wide WHERE n = $1 AND "Part" = 'C'`, [random(rows)]);
  });
  // Cut by a sample of the keys, a piece may be less than 2,000 rows; of one chunk nobody sees that it is begun.
  await rig.start({ ...sessions, snapshotRowsPerSecond: 800 });
  await readTogether('wide');
  const { snapshots } = await rig.status();
  assert.ok(snapshots[0]!.pieces >= 4 && snapshots[0]!.bytes > 0, JSON.stringify(snapshots));
  const done = await rig.complete();
  await writer.end();
  await rig.caughtUp();
  const read = (await rig.assertFolds('wide')).filter(({ op }) => op === 'r').map(({ key }) => key);
  assert.equal(new Set(read).size, read.length, 'a row is read once');
  assert.equal(done.snapshots[0]!.estimatedRows, rows);
});

/** Rows without a key, each with a number of its own. */
const makeLoose = `
  CREATE TABLE loose (n int, version int, pad text) WITH (autovacuum_enabled = off);
  ALTER TABLE loose REPLICA IDENTITY FULL;
  CREATE INDEX ON loose (n);
  INSERT INTO loose SELECT i, 0, repeat('p', 1000) FROM generate_series(1, ${rows}) i`;

const assertOnce = (read: readonly Event[], what: string): void => {
  const seen = new Set<string>();
  for (const { op, data } of read) {
    if (op !== 'r' && op !== 'c') continue;
    const row = `${data.n}.${data.version}`;
    assert.ok(!seen.has(row), `${what}: row ${row} came twice`);
    seen.add(row);
  }
};

test('rows without a key move while they are read by ctid: each is there once', { timeout: 300_000 }, async () => {
  await query(makeLoose);
  let last = rows;
  const writers = [0, 1].map(parity =>
    writing(rig.database.url, async (client, n) => {
      // Of each writer its own rows: they wait for nobody.
      const own = () => random(rows / 2) * 2 + parity;
      await client.query('BEGIN');
      await client.query('UPDATE loose SET version = version + 1 WHERE n = ANY ($1)', [Array.from({ length: 8 }, own)]);
      await client.query('DELETE FROM loose WHERE n = ANY ($1)', [Array.from({ length: 2 }, own)]);
      const first = last + 1;
      last += 3;
      await client.query(`INSERT INTO loose SELECT i, 0, repeat('q', 1000) FROM generate_series($1::int, $2) i`, [
        first,
        last,
      ]);
      await client.query(n % 7 === 3 ? 'ROLLBACK' : 'COMMIT');
      // What has gone makes room on pages that have been read, for rows from pages that have not.
      if (parity === 0 && n % 20 === 19) await client.query('VACUUM (INDEX_CLEANUP on, TRUNCATE off) loose');
    }),
  );
  await rig.start(sessions);
  await readTogether('loose');
  await rig.complete();
  const written = await Promise.all(writers.map(writer => writer.end()));
  assert.ok(
    written.every(count => count > 10),
    `${written} transactions`,
  );
  await rig.caughtUp();
  const read = await rig.assertFolds('loose');
  assertOnce(read, 'loose');
  assert.ok(read.filter(({ op }) => op === 'u').length > 50);
});

test('a history that is only added to needs no replica identity', { timeout: 300_000 }, async () => {
  await query(`
    CREATE TABLE history (n int, version int DEFAULT 0, pad text);
    INSERT INTO history SELECT i, 0, repeat('h', 1000) FROM generate_series(1, ${rows}) i`);
  let last = rows;
  // Transactions of any length, with others beginning and ending in between.
  const writers = [1, 5, 30].map(inserts =>
    writing(rig.database.url, async client => {
      await client.query('BEGIN');
      for (let i = 0; i < inserts; i++) await client.query('INSERT INTO history VALUES ($1)', [++last]);
      await client.query('COMMIT');
    }),
  );
  await rig.start({ ...sessions, operations: ['create'] });
  await rig.complete();
  for (const writer of writers) await writer.end();
  await rig.caughtUp();
  const read = await rig.assertFolds('history');
  assertOnce(read, 'history');
  assert.ok(read.some(({ op }) => op === 'c') && read.some(({ op }) => op === 'r'));
});

test('partitions without a key are read each by its own pages', { timeout: 300_000 }, async () => {
  await query(`
    CREATE TABLE loose (n int, version int, pad text) PARTITION BY RANGE (n);
    CREATE TABLE "Low" PARTITION OF loose FOR VALUES FROM (0) TO (5000);
    CREATE TABLE high (pad text, version int, n int);
    ALTER TABLE loose ATTACH PARTITION high FOR VALUES FROM (5000) TO (90000);
    CREATE TABLE none PARTITION OF loose FOR VALUES FROM (90000) TO (99999);
    ALTER TABLE loose REPLICA IDENTITY FULL; ALTER TABLE "Low" REPLICA IDENTITY FULL; ALTER TABLE high REPLICA IDENTITY FULL;
    CREATE INDEX ON loose (n);
    INSERT INTO loose SELECT i, 0, repeat('p', 1000) FROM generate_series(1, ${rows}) i`);
  const writer = writing(rig.database.url, async (client, n) => {
    await client.query('UPDATE loose SET version = version + 1 WHERE n = $1', [random(rows)]);
    // From one partition into the other.
    await client.query('UPDATE loose SET n = $2 WHERE n = $1', [random(4000), rows + 1 + n]);
  });
  await rig.start(sessions);
  await readTogether('loose');
  const { snapshots } = await rig.status();
  assert.ok(snapshots[0]!.pieces >= 3, JSON.stringify(snapshots));
  await rig.complete();
  await writer.end();
  await rig.caughtUp();
  await rig.assertFolds('loose');
});

test('chosen keys of a table that is read by ctid: several partitions of a topic', { timeout: 300_000 }, async () => {
  await query(makeLoose);
  const writer = writing(rig.database.url, async client => {
    await client.query('UPDATE loose SET version = version + 1 WHERE n = ANY ($1)', [
      Array.from({ length: 8 }, () => random(rows)),
    ]);
  });
  await rig.start({ ...sessions, keys: { 'public.loose': ['n'] } });
  await readTogether('loose');
  await rig.complete();
  await writer.end();
  await rig.caughtUp();
  const read = await rig.assertFolds('loose');
  assert.equal(new Set(read.map(({ partition }) => partition)).size, 3);
});

test('a table that is emptied or written anew while it is read by ctid', { timeout: 300_000 }, async () => {
  await query(makeLoose);
  await rig.start(sessions);
  await rig.halfWay('public.loose', 2000);
  await query('TRUNCATE loose');
  await query('INSERT INTO loose SELECT i, 1 FROM generate_series(1, 6000) i');
  await rig.complete();
  await rig.caughtUp();
  assertOnce(
    (await rig.assertFolds('loose')).filter(({ op }) => op !== 'r'),
    'truncated',
  );

  await query('CREATE TABLE other (n int, version int, pad text); ALTER TABLE other REPLICA IDENTITY FULL');
  await query(`INSERT INTO other SELECT i, 0, repeat('p', 1000) FROM generate_series(1, ${rows}) i`);
  await rig.millrace.stop();
  await rig.start(sessions);
  await rig.halfWay('public.other', 2000);
  await query('VACUUM FULL other');
  await rig.complete();
  await rig.caughtUp();
  // Its places are new ones: rows may be there twice, and none is missing.
  const found = new Set((await rig.events('other')).map(({ data }) => data.n));
  assert.equal(found.size, rows);
});

test('values stored out of line are in the topic, though an update which did not log them came first', {
  timeout: 300_000,
}, async () => {
  await query(`
    CREATE TABLE documents (id int PRIMARY KEY, version int, body text);
    ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
    INSERT INTO documents SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 1500) i`);
  const writer = writing(rig.database.url, async (client, n) => {
    await client.query('UPDATE documents SET version = $2 WHERE id = $1', [1 + random(1500), n]);
  });
  await rig.start({ snapshotRowsPerSecond: 500, partitions: 1 });
  await rig.complete();
  await writer.end();
  await rig.caughtUp();
  const read = await rig.assertFolds('documents');
  assert.ok(
    read.some(({ op, data }) => op === 'u' && !('body' in data)),
    'no update left a value out',
  );
});

test('bytes a second are a limit as well', { timeout: 300_000 }, async () => {
  await query(`
    CREATE TABLE wide (id int PRIMARY KEY, pad text);
    INSERT INTO wide SELECT i, repeat('w', 1000) FROM generate_series(1, 9000) i`);
  await rig.start({ snapshotBytesPerSecond: 2_000_000 });
  const { snapshots } = await rig.halfWay('public.wide', 1);
  assert.equal(snapshots[0]!.state, 'reading', 'all of it at once');
  await rig.complete();
  await rig.caughtUp();
  await rig.assertFolds('wide');
});
