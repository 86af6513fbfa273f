// A snapshot under concurrent writes that is killed half-way: broker, walsender, sessions that read, PostgreSQL. It goes on
// where it was: no gap, nothing stale, and what was in the log is not read again.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { createDatabase } from '../database.ts';
import { type OwnPostgres, startPostgres } from '../own-postgres.ts';
import { type Event, SnapshotRig, writing } from '../snapshot-rig.ts';

const rows = 6000;
let rig: SnapshotRig;
let postgres: OwnPostgres | undefined;

beforeEach(async () => {
  rig = await SnapshotRig.open();
});

afterEach(async () => {
  await rig.remove();
  await postgres?.remove();
  postgres = undefined;
});

const random = (below: number) => Math.floor(Math.random() * below);
/** Two seconds for each table, so that there is a half-way. */
const settings = { snapshotReaders: 3, snapshotRowsPerSecond: 3000 };

/** One read by its key, in several pieces because its pages are nearly empty, and one by ctid; rows are changed, and none comes or goes. */
async function makeTables(): Promise<{ end(): Promise<number> }> {
  await rig.onSource(`
    CREATE TABLE keyed (id int PRIMARY KEY, version int, pad text) WITH (fillfactor = 10);
    INSERT INTO keyed SELECT i, 0, repeat('p', 200) FROM generate_series(1, ${rows}) i;
    CREATE TABLE loose (n int, version int, pad text); ALTER TABLE loose REPLICA IDENTITY FULL;
    CREATE INDEX ON loose (n);
    INSERT INTO loose SELECT i, 0, repeat('p', 200) FROM generate_series(1, ${rows}) i`);
  return writing(rig.sourceUrl, async client => {
    const some = () => Array.from({ length: 5 }, () => 1 + random(rows));
    await client.query('UPDATE keyed SET version = version + 1 WHERE id = ANY ($1)', [some()]);
    await client.query('UPDATE loose SET version = version + 1 WHERE n = ANY ($1)', [some()]);
  });
}

const readOnce = (read: readonly Event[], nameOf: (event: Event) => unknown): number => {
  const names = read.filter(({ op }) => op === 'r').map(nameOf);
  assert.equal(new Set(names).size, names.length, 'a row was read twice');
  return names.length;
};

/** What is left when all has been read. */
async function assertWhole(writer: { end(): Promise<number> }): Promise<void> {
  const { snapshots } = await rig.complete();
  assert.ok((await writer.end()) > 0);
  await rig.caughtUp();
  readOnce(await rig.assertFolds('keyed'), ({ key }) => key);
  readOnce(await rig.assertFolds('loose'), ({ data }) => data.n);
  // Rows are counted when their chunk is in the log: each was in one chunk.
  assert.equal(snapshots.find(({ table }) => table === 'public.keyed')!.rows, rows);
}

/** Where the pieces of the table that is read by its key have come to, in its order. */
async function reached(): Promise<{ from: number; to: number }[]> {
  const { rows: pieces } = await rig.database.pool.query<{
    after: string[] | null;
    until: string[] | null;
    done: boolean;
  }>(
    `SELECT after_key AS after, until_key AS until, done FROM kafka.capture_snapshot_pieces WHERE table_name = 'keyed' ORDER BY piece`,
  );
  return pieces.map(({ after, until, done }, i) => {
    const from = i === 0 ? 0 : Number(pieces[i - 1]!.until![0]);
    const end = until === null ? rows : Number(until[0]);
    if (done) return { from, to: end };
    return { from, to: after === null ? from : Number(after[0]) };
  });
}

test('the broker is killed: chunks that are in the log are not read again', { timeout: 300_000 }, async () => {
  const writer = await makeTables();
  await rig.start(settings);
  // Status counts a chunk before it is noted how far that is.
  await rig.until(reached, noted => noted.some(({ from, to }) => to > from), 'half-way');
  await rig.millrace.stop('SIGKILL');
  const done = await reached();
  assert.ok(done.length >= 3, JSON.stringify(done));
  // Nobody is told of this change of what has been read; who reads it again will show it.
  await writer.end();
  await rig.onSource('ALTER PUBLICATION millrace_shop DROP TABLE keyed');
  for (const { from, to } of done)
    await rig.onSource('UPDATE keyed SET pad = $3 WHERE id > $1 AND id <= $2', [from, to, 'again']);
  await rig.onSource('ALTER PUBLICATION millrace_shop ADD TABLE keyed');
  const more = writing(rig.sourceUrl, client =>
    client.query('UPDATE loose SET version = version + 1 WHERE n = $1', [1 + random(rows)]),
  );
  await rig.start(settings);
  await rig.complete();
  await rig.onSource(`UPDATE keyed SET pad = '' WHERE pad = 'again'`);
  const read = await rig.events('keyed');
  assert.deepEqual(
    read.filter(({ op, data }) => op === 'r' && data.pad === 'again'),
    [],
  );
  await assertWhole(more);
});

test('walsender and sessions that read are ended again and again', { timeout: 300_000 }, async () => {
  const writer = await makeTables();
  await rig.start(settings);
  for (let round = 1; round <= 4; round++) {
    await rig.halfWay('public.keyed', (rows * round) / 5);
    await rig.onSource(
      round % 2 === 0
        ? `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'millrace snapshot' AND datname = current_database()`
        : `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1`,
      round % 2 === 0 ? [] : [rig.slot],
    );
    await rig.millrace.logged('a capture broke off');
  }
  await assertWhole(writer);
});

test('the PostgreSQL that is captured crashes', { timeout: 300_000 }, async () => {
  postgres = await startPostgres({ wal_level: 'logical', fsync: 'off' });
  await rig.remove();
  rig = await SnapshotRig.open(postgres.url);
  const writer = await makeTables();
  await rig.start(settings);
  await rig.halfWay('public.keyed', rows / 3);
  await postgres.stop(true);
  await rig.millrace.logged('a capture broke off');
  await postgres.start();
  await assertWhole(writer);
});

test('the log’s own PostgreSQL ends all connections', { timeout: 300_000 }, async () => {
  const source = await createDatabase({ empty: true });
  try {
    await rig.remove();
    rig = await SnapshotRig.open(source.url);
    const writer = await makeTables();
    await rig.start(settings);
    for (const share of [4, 2]) {
      await rig.halfWay('public.keyed', rows / share);
      await rig.database.pool.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'millrace%' AND application_name <> 'millrace test' AND datname = current_database()`,
      );
    }
    await assertWhole(writer);
  } finally {
    await rig.remove();
    await source.drop();
    rig = await SnapshotRig.open();
  }
});
