// Capture on a real server: transactions as committed, each change once, over kill -9 at random moments.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../database.ts';
import { Millrace } from '../millrace.ts';
import { headerOf, readTopic, textOf } from '../read-topic.ts';

let database: TestDatabase;
let directory: string;
let millrace: Millrace | undefined;

const suffix = Math.random().toString(36).slice(2, 10);
const slot = `millrace_test_${suffix}`;

before(async () => {
  database = await createDatabase();
  directory = mkdtempSync(join(tmpdir(), 'millrace-capture-'));
  writeFileSync(
    join(directory, 'millrace.yaml'),
    `capture:\n  shop:\n    tables: [public.*]\n    format: plain\n    snapshot: never\n    partitions: 3\n    slot: ${slot}\n`,
  );
  await database.pool.query('CREATE TABLE items (id int PRIMARY KEY, version int NOT NULL, note text)');
});

after(async () => {
  await millrace?.stop('SIGKILL');
  await database.drop();
  rmSync(directory, { recursive: true, force: true });
});

async function start(...more: string[]): Promise<Millrace> {
  const flags = [
    ...more,
    `--config=${directory}/millrace.yaml`,
    '--sql-produce=on',
    `--capture-spool-dir=${directory}/spool`,
  ];
  millrace = new Millrace([`--database-url=${database.url}`, ...flags]);
  return millrace.ready();
}

const enabled = async (): Promise<boolean> =>
  (await database.pool.query<{ enabled: boolean }>('SELECT enabled FROM kafka.produce_settings')).rows[0]!.enabled;

async function until(condition: () => Promise<boolean>, what: string, patienceMs = 240_000): Promise<void> {
  for (const deadline = Date.now() + patienceMs; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`never ${what}:\n${millrace?.stderr}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

interface Stored {
  partition: number;
  value: string | null;
  id: string;
}

const stored = async (topic: string): Promise<Stored[]> =>
  (await readTopic(database.pool, topic)).map(record => ({
    partition: record.partition,
    value: textOf(record.value),
    id: `${headerOf(record, 'commit_lsn')}.${headerOf(record, 'ordinal')}`,
  }));

test('every change and every produced record is there once, in order, over kill -9', { timeout: 300_000 }, async () => {
  await start();
  await until(enabled, 'ready for kafka.produce');
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  let writing = true;
  let produced = 0;
  const writer = (async () => {
    for (let n = 0; writing; n++) {
      await client.query('BEGIN');
      await client.query(
        `INSERT INTO items SELECT i, $1, repeat('x', 100) FROM generate_series($2::int, $2::int + 9) i
         ON CONFLICT (id) DO UPDATE SET version = excluded.version`,
        [n, (n * 7) % 200],
      );
      if (n % 5 === 0) await client.query('DELETE FROM items WHERE id = $1', [n % 200]);
      if (n % 11 === 0) await client.query('UPDATE items SET id = $2 WHERE id = $1', [(n + 1) % 200, 1000 + n]);
      await client.query(`SELECT kafka.produce('made.in.sql', $1::text)`, [`record ${n}`]);
      await client.query(n % 9 === 4 ? 'ROLLBACK' : 'COMMIT');
      if (n % 9 !== 4) produced++;
    }
  })();
  for (let round = 0; round < 5; round++) {
    await new Promise(resolve => setTimeout(resolve, 100 + Math.random() * 700)); // when to kill, not what to wait for
    await millrace!.stop('SIGKILL');
    await start();
  }
  await millrace!.logged('capturing');
  writing = false;
  await writer;
  await client.query(`INSERT INTO items VALUES (-1, -1, 'end')`);
  await client.query(`SELECT kafka.produce('made.in.sql', 'end'::text)`);
  await client.end();
  const has = async (topic: string, text: string) => (await stored(topic)).some(({ value }) => value?.includes(text));
  await until(() => has('shop.public.items', '"note":"end"'), 'caught up');
  await until(() => has('made.in.sql', 'end'), 'caught up with SQL');

  const changes = await stored('shop.public.items');
  const events = changes.filter(({ value }) => value !== null);
  const identities = events.map(({ id, value }) => `${id} ${JSON.parse(value!).op}`);
  assert.equal(new Set(identities).size, identities.length, 'a change is there twice');
  const folded = new Map<number, number>();
  for (const { value } of events) {
    const { op, data } = JSON.parse(value!) as { op: string; data: { id: number; version: number } };
    if (op === 'd') folded.delete(data.id);
    else folded.set(data.id, data.version);
  }
  const { rows } = await database.pool.query<{ id: number; version: number }>('SELECT id, version FROM items');
  assert.deepEqual(
    [...folded].toSorted(([a], [b]) => a - b),
    rows.map(({ id, version }) => [id, version]).toSorted(([a], [b]) => a! - b!),
  );
  const records = (await stored('made.in.sql')).map(({ value }) => value);
  assert.equal(records.length, produced + 1, 'as many records as transactions that committed');
  assert.equal(new Set(records).size, records.length);
});

test('a transaction in progress is put aside; what a savepoint rolled back is absent', {
  timeout: 300_000,
}, async () => {
  await database.pool.query('CREATE TABLE large (id int PRIMARY KEY, note text)');
  await millrace!.stop();
  const name = new URL(database.url).pathname.slice(1);
  await database.pool.query(`ALTER DATABASE ${name} SET logical_decoding_work_mem = '64kB'`);
  await start();
  // What is written before a table is published is not captured (snapshot: never).
  await millrace!.logged('"table":"public.large"');
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query('BEGIN');
  await client.query(`INSERT INTO large SELECT i, repeat(md5(i::text), 40) FROM generate_series(1, 6000) i`);
  await client.query('SAVEPOINT s');
  await client.query(`INSERT INTO large SELECT i, 'gone' FROM generate_series(6001, 7000) i`);
  await client.query('ROLLBACK TO SAVEPOINT s');
  await client.query(`INSERT INTO large VALUES (7001, 'last')`);
  assert.deepEqual(await stored('shop.public.large'), []);
  await client.query('COMMIT');
  await client.end();
  // Its pieces become visible as they commit, in each of the partitions by itself.
  await until(async () => (await stored('shop.public.large')).length >= 6001, 'all rows');
  const rows = await stored('shop.public.large');
  assert.equal(new Set(rows.map(row => row.id)).size, 6001);
  assert.equal(rows.length, 6001);
  const captures = (await (await fetch(`${millrace!.http}/api/captures`)).json()) as {
    name: string;
    spooledBytes: number;
  }[];
  assert.ok(
    captures.find(({ name }) => name === 'shop')!.spooledBytes > 1_000_000,
    'it was streamed before its commit',
  );
  await database.pool.query(`ALTER DATABASE ${name} RESET logical_decoding_work_mem`);
});

/** In MB: what the process takes now, or has taken at most. */
function resident(field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${millrace!.pid}/status`, 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)![1]) / 1024;
}

/** Ten million with MILLRACE_TEST_ROWS (CONTRIBUTING.md). */
const rowCount = Number(process.env.MILLRACE_TEST_ROWS ?? 1_000_000);

test('a transaction of a million rows takes bounded memory, and is there whole', {
  timeout: 300_000 + rowCount / 10,
  skip: existsSync('/proc/self/status') ? false : 'there is no /proc to read memory from',
}, async t => {
  await database.pool.query('CREATE TABLE million (id int PRIMARY KEY, note text)');
  await millrace!.stop();
  await start('--tail-cache-bytes=0');
  await millrace!.logged('"table":"public.million"');
  const before = resident('VmRSS');
  await database.pool.query(`INSERT INTO million SELECT i, md5(i::text) FROM generate_series(1, ${rowCount}) i`);
  const reached = async () => {
    const { rows } = await database.pool.query<{ records: bigint }>(
      `SELECT coalesce(sum(next_offset), 0)::int8 AS records FROM kafka.log_ends(ARRAY(
         SELECT topic_id FROM kafka.topics WHERE name = 'shop.public.million'))`,
    );
    return rows[0]!.records;
  };
  await until(async () => (await reached()) >= BigInt(rowCount), 'all records', 240_000 + rowCount / 10);
  const most = resident('VmHWM');
  t.diagnostic(`${before.toFixed(0)} MB before, ${most.toFixed(0)} MB at most`);
  assert.equal(await reached(), BigInt(rowCount));
  assert.ok(most - before < 150, `it took ${(most - before).toFixed(0)} MB`);
});
