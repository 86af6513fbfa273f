// Snapshots on a real server, while everything is written to: the fold of each topic is its table.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../database.ts';
import { Millrace } from '../millrace.ts';

let database: TestDatabase;
let directory: string;
let millrace: Millrace | undefined;
let slot: string;

beforeEach(async () => {
  database = await createDatabase();
  directory = mkdtempSync(join(tmpdir(), 'millrace-snapshot-'));
  slot = `millrace_test_${Math.random().toString(36).slice(2, 10)}`;
});

afterEach(async () => {
  await millrace?.stop('SIGKILL');
  millrace = undefined;
  await database.drop();
  rmSync(directory, { recursive: true, force: true });
});

async function start(settings: Readonly<Record<string, unknown>> = {}): Promise<Millrace> {
  const shop = { tables: ['public.*'], format: 'plain', partitions: 3, slot, ...settings };
  writeFileSync(join(directory, 'millrace.yaml'), JSON.stringify({ capture: { shop } }));
  millrace = new Millrace([
    `--database-url=${database.url}`,
    `--config=${directory}/millrace.yaml`,
    `--capture-spool-dir=${directory}/spool`,
  ]);
  return millrace.ready();
}

interface Status {
  readonly state: string;
  readonly reason?: string;
  readonly snapshots: { table: string; state: string; rows: number; estimatedRows: number | null }[];
}

const status = async (): Promise<Status> =>
  ((await (await fetch(`${millrace!.http}/api/captures`)).json()) as Status[])[0]!;

async function until<T>(read: () => Promise<T>, condition: (value: T) => boolean, what: string): Promise<T> {
  for (const deadline = Date.now() + 90_000; ; ) {
    const value = await read();
    if (condition(value)) return value;
    if (Date.now() > deadline) throw new Error(`never ${what}: ${JSON.stringify(value)}\n${millrace?.stderr}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

const complete = () =>
  until(
    status,
    ({ snapshots }) => snapshots.length > 0 && snapshots.every(({ state }) => state === 'done'),
    'complete',
  );

/** When something that has just been written has come out of the stream, so has everything before it. */
async function caughtUp(): Promise<void> {
  const { rows } = await database.pool.query<{ lsn: string }>(
    `SELECT pg_current_wal_lsn()::text AS lsn, pg_logical_emit_message(true, 'test', 'end')`,
  );
  const { lsn } = rows[0]!;
  const read = async () =>
    (
      await database.pool.query(
        `SELECT FROM kafka.messages WHERE topic = 'shop.message'
           AND (SELECT convert_from(h.value, 'UTF8') FROM unnest(headers) h WHERE h.key = 'commit_lsn')::pg_lsn >= $1`,
        [lsn],
      )
    ).rowCount;
  await until(read, count => count! > 0, 'caught up');
}

interface Event {
  readonly partition: number;
  readonly key: string | null;
  readonly id: string;
  readonly op: string;
  readonly data: Record<string, unknown>;
}

async function events(topic: string): Promise<Event[]> {
  const { rows } = await database.pool.query<{ partition: number; key: string | null; value: string; id: string }>(
    `SELECT partition, convert_from(key, 'UTF8') AS key, convert_from(value, 'UTF8') AS value,
            (SELECT string_agg(convert_from(h.value, 'UTF8'), '.') FROM unnest(headers) h WHERE h.key IN ('commit_lsn', 'ordinal')) AS id
     FROM kafka.messages WHERE topic = $1 AND value IS NOT NULL ORDER BY partition, partition_offset`,
    [topic],
  );
  return rows.map(({ partition, key, value, id }) => {
    const { op, data } = JSON.parse(value) as Event;
    return { partition, key, op, data, id };
  });
}

/** What a consumer has that keeps the newest value of each key. */
function fold(read: readonly Event[]): Map<string, Record<string, unknown>> {
  const rows = new Map<string, Record<string, unknown>>();
  const partitionOf = new Map<string, number>();
  for (const { partition, key, op, data } of read) {
    if (op === 't') {
      for (const [known, at] of partitionOf) if (at === partition) rows.delete(known);
    } else if (op === 'd') {
      rows.delete(key!);
    } else {
      rows.set(key!, data);
      partitionOf.set(key!, partition);
    }
  }
  return rows;
}

async function assertFolds(table: string, order: string): Promise<Event[]> {
  const read = await events(`shop.public.${table}`);
  const identities = read.map(({ partition, op, id }) => `${op === 't' ? partition : ''}${op}${id}`);
  assert.equal(new Set(identities).size, identities.length, `a record of ${table} is there twice`);
  const { rows } = await database.pool.query<{ row: Record<string, unknown> }>(
    `SELECT to_jsonb(t) AS row FROM ${table} t ORDER BY ${order}`,
  );
  const sorted = (values: Iterable<Record<string, unknown>>) =>
    Array.from(values, value => JSON.stringify(Object.entries(value).toSorted())).sort();
  assert.deepEqual(sorted(fold(read).values()), sorted(rows.map(({ row }) => row)));
  return read;
}

/** Writes to tables a and b until it is told to end. */
function workload(): { end(): Promise<number> } {
  let writing = true;
  const random = (below: number) => Math.floor(Math.random() * below);
  const write = async (worker: number): Promise<number> => {
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    let n = 0;
    for (; writing; n++) {
      await client.query('BEGIN');
      const id = random(40_000);
      await client.query('INSERT INTO a VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET version = a.version + 1', [
        id,
        n,
      ]);
      await client.query('DELETE FROM a WHERE id = $1', [random(40_000)]);
      await client.query('UPDATE a SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM a WHERE id = $2)', [
        random(40_000),
        40_000 + worker * 1_000_000 + n,
      ]);
      await client.query('UPDATE b SET note = $2 WHERE part = $1', [String(random(300)), `note ${worker} ${n}`]);
      if (n % 97 === 96) await client.query('TRUNCATE c');
      await client.query('INSERT INTO c VALUES ($1, $2) ON CONFLICT DO NOTHING', [random(30_000), n]);
      await client.query(n % 9 === 4 ? 'ROLLBACK' : 'COMMIT');
    }
    await client.end();
    return n;
  };
  // Each in its own order of locks would be a deadlock now and then: one writer of each kind is enough.
  const writers = write(1);
  return {
    end() {
      writing = false;
      return writers;
    },
  };
}

async function makeTables(): Promise<void> {
  await database.pool.query(`
    CREATE TABLE a (id int PRIMARY KEY, version int NOT NULL);
    CREATE TABLE b (part text, n int, note text, PRIMARY KEY (part, n));
    CREATE TABLE c (id int PRIMARY KEY, n int);
    CREATE TABLE empty (id int PRIMARY KEY);
    INSERT INTO a SELECT i, 0 FROM generate_series(0, 39999) i;
    INSERT INTO b SELECT (i % 300)::text, i, 'é "quoted" ' || i FROM generate_series(1, 30000) i;
    INSERT INTO c SELECT i, 0 FROM generate_series(0, 29999) i;
    ANALYZE;
  `);
}

test('tables are read while they change: each topic folds to its table', { timeout: 240_000 }, async () => {
  await makeTables();
  const writing = workload();
  await start();
  const { snapshots } = await complete();
  await writing.end();
  await caughtUp();
  const a = await assertFolds('a', 'id');
  await assertFolds('b', 'part, n');
  await assertFolds('c', 'id');
  assert.deepEqual(await events('shop.public.empty'), []);
  const read = a.filter(({ op }) => op === 'r').map(({ key }) => key);
  assert.equal(new Set(read).size, read.length, 'a row is read once');
  assert.ok(read.length > 20_000);
  assert.ok(snapshots.find(({ table }) => table === 'public.a')!.rows >= read.length);

  // Read again on request, beside the stream.
  const again = workload();
  const { status: code } = await fetch(`${millrace!.http}/api/captures/shop/resnapshot?table=public.a`, {
    method: 'POST',
  });
  assert.equal(code, 202);
  await complete();
  await again.end();
  await caughtUp();
  const after = await assertFolds('a', 'id');
  assert.ok(after.filter(({ op }) => op === 'r').length > read.length + 20_000);
});

test('killed again and again while it reads, it goes on where it was', { timeout: 400_000 }, async () => {
  await makeTables();
  const writing = workload();
  let begun = 0;
  await start({ snapshotRowsPerSecond: 8000 });
  for (let round = 0; round < 6; round++) {
    await until(status, ({ state }) => state === 'streaming', 'streaming');
    await new Promise(resolve => setTimeout(resolve, Math.random() * 1500)); // when to kill, not what to wait for
    const { snapshots } = await status();
    if (snapshots.some(({ state }) => state !== 'done')) begun++;
    await millrace!.stop('SIGKILL');
    await start({ snapshotRowsPerSecond: 8000 });
  }
  await complete();
  await writing.end();
  await caughtUp();
  const a = await assertFolds('a', 'id');
  await assertFolds('b', 'part, n');
  await assertFolds('c', 'id');
  const read = a.filter(({ op }) => op === 'r').map(({ key }) => key);
  assert.equal(new Set(read).size, read.length, 'a row is read once');
  assert.ok(begun >= 2, `killed ${begun} times while it read`);
});

test('a table without a key is read in one piece; what is never asked for is not read', {
  timeout: 120_000,
}, async () => {
  await database.pool.query(`
    CREATE TABLE loose (n int); ALTER TABLE loose REPLICA IDENTITY FULL;
    INSERT INTO loose SELECT i % 100 FROM generate_series(1, 25000) i;
  `);
  await start();
  await complete();
  await database.pool.query('DELETE FROM loose WHERE ctid IN (SELECT ctid FROM loose LIMIT 10)');
  await caughtUp();
  const read = await events('shop.public.loose');
  const count = (wanted: string) => read.filter(({ op }) => op === wanted).length;
  assert.deepEqual([count('r'), count('d'), count('c')], [25_000, 10, 0]);
});

test('never: changes alone', { timeout: 60_000 }, async () => {
  await database.pool.query('CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)');
  await start({ snapshot: 'never' });
  await until(status, ({ state }) => state === 'streaming', 'streaming');
  await database.pool.query('INSERT INTO items VALUES (2)');
  await caughtUp();
  assert.deepEqual(
    (await events('shop.public.items')).map(({ op, data }) => [op, data.id]),
    [['c', 2]],
  );
});

test('only: the rows, in Debezium’s envelope; then it ends and lets its slot go', { timeout: 60_000 }, async () => {
  await database.pool.query(
    `CREATE TABLE items (id int PRIMARY KEY, note text); INSERT INTO items VALUES (1, 'tea'), (2, NULL)`,
  );
  await start({ snapshot: 'only', format: 'debezium', partitions: 1 });
  await until(status, ({ state }) => state === 'done', 'done');
  const { rows } = await database.pool.query<{ value: string }>(
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
    (await database.pool.query('SELECT FROM pg_replication_slots WHERE slot_name = $1', [slot])).rowCount;
  assert.equal(await slots(), 0);
  await millrace!.stop();
  await start({ snapshot: 'only', format: 'debezium', partitions: 1 });
  await until(status, ({ state }) => state === 'done', 'done');
  assert.equal(await slots(), 0);
});

test('when_needed: a slot that is lost means that the tables are read again', { timeout: 90_000 }, async () => {
  await database.pool.query('CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)');
  await start({ snapshot: 'when_needed' });
  await complete();
  await millrace!.stop();
  await database.pool.query('SELECT pg_drop_replication_slot($1)', [slot]);
  await database.pool.query('INSERT INTO items VALUES (2)');
  await start({ snapshot: 'when_needed' });
  await complete();
  await assertFolds('items', 'id');
  assert.equal((await events('shop.public.items')).length, 3);
});
