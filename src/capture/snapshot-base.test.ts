import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { type Lsn, parseLsn } from '../postgres/lsn.ts';
import { type Message, type Relation, Tuple } from '../postgres/pgoutput.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { ChangeHeaders } from './change-headers.ts';
import { SnapshotBases } from './snapshot-base.ts';
import { type Job, SnapshotJobs } from './snapshot-jobs.ts';
import { Source } from './source.ts';
import type { Transaction } from './stream.ts';

let database: TestDatabase;
let source: Source;
let writer: pg.Client;
let jobs: SnapshotJobs;
let bases: SnapshotBases;
let job: Job;

const relation: Relation = {
  ...{ kind: 'relation', xid: 0, id: 77, schema: 'public', name: 'loose' },
  ...{ replicaIdentity: 'full', columns: [] },
};
const insert: Message = { kind: 'insert', xid: 0, relationId: 77, after: new Tuple() };

const changed = (xid: number, commitLsn: Lsn): Transaction => ({
  ...{ xid, commitLsn, commitMicros: 0n, commitMs: 0, previousEnd: 0n as Lsn, headers: new ChangeHeaders() },
});

before(async () => {
  database = await createDatabase();
  await database.pool.query(
    `INSERT INTO kafka.captures (name, slot_name) VALUES ('shop', 'none'); CREATE TABLE loose (n int)`,
  );
  source = await Source.open(database.url, () => {});
  writer = new pg.Client({ connectionString: database.url });
  await writer.connect();
});

after(async () => {
  await writer.end();
  await source.end();
  await database.drop();
});

beforeEach(async () => {
  await database.pool.query('DELETE FROM kafka.capture_snapshots');
  const { rows } = await database.pool.query<{ id: number }>('SELECT capture_id AS id FROM kafka.captures');
  jobs = new SnapshotJobs(new WriteLane(database.pool), rows[0]!.id);
  await jobs.begin([{ schema: 'public', name: 'loose' }]);
  job = (await jobs.load())[0]!;
  bases = new SnapshotBases(source, jobs);
  bases.guard(job);
  bases.relation(relation);
});

/** The id of a transaction that `writer` begins, and the WAL's end then. */
async function begin(): Promise<{ xid: number; lsn: Lsn }> {
  await writer.query('BEGIN');
  const { rows } = await writer.query<{ xid: string; lsn: string }>(
    `SELECT (pg_current_xact_id()::text::numeric % 4294967296)::text AS xid, pg_current_wal_insert_lsn()::text AS lsn`,
  );
  return { xid: Number(rows[0]!.xid), lsn: parseLsn(rows[0]!.lsn) };
}

test('a base that does not see what has been left out is not taken', async () => {
  // As one that waits for a standby: it has been streamed, and nobody sees it yet.
  const { xid, lsn } = await begin();
  assert.equal(bases.passes(insert, changed(xid, lsn)), false);
  assert.equal(await bases.choose(job), false);
  assert.equal(job.base, null);
  await writer.query('COMMIT');
  assert.equal(await bases.choose(job), true);
});

test('the stream waits while a base is taken; then what it sees is left out, and all else passes', async () => {
  const seen = await begin();
  await writer.query('COMMIT');
  const unseen = await begin();
  const choosing = bases.choose(job);
  const [first, second] = [
    bases.passes(insert, changed(seen.xid, seen.lsn)),
    bases.passes(insert, changed(unseen.xid, unseen.lsn)),
  ];
  assert.ok(first instanceof Promise && second instanceof Promise);
  assert.deepEqual([await choosing, await first, await second], [true, false, true]);
  await writer.query('ROLLBACK');
});

test('a base that has been stored holds after a crash, up to where it was taken', async () => {
  const seen = await begin();
  await writer.query('COMMIT');
  assert.equal(await bases.choose(job), true);
  const stored = (await jobs.load())[0]!;
  assert.deepEqual(stored.base, job.base);
  const again = new SnapshotBases(source, jobs);
  again.guard({ ...stored, done: true });
  again.relation(relation);
  assert.equal(again.passes(insert, changed(seen.xid, seen.lsn)), false);
  // Ids go round: behind it nobody asks any more whose they are.
  assert.equal(again.passes(insert, changed(seen.xid, (job.base!.lsn + 1n) as Lsn)), true);
  assert.equal(again.waiting, 0);
});

test('truncates pass, and so do changes of other tables', () => {
  assert.equal(bases.passes({ ...insert, relationId: 78 }, changed(5, 1n as Lsn)), true);
  const truncate: Message = { kind: 'truncate', xid: 0, relationIds: [77], cascade: false, restartIdentity: false };
  assert.equal(bases.passes(truncate, changed(5, 1n as Lsn)), true);
});
