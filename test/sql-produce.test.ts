// kafka.produce from outside: what it refuses, what it makes, and that Millrace starts where it cannot be served.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { createDatabase, onServer, type TestDatabase } from './database.ts';
import { Millrace } from './millrace.ts';
import { type OwnPostgres, startPostgres } from './own-postgres.ts';

let database: TestDatabase;
let millrace: Millrace;
let sql: pg.Client;
const started: Millrace[] = [];
const servers: OwnPostgres[] = [];
const role = `producer_${Math.random().toString(36).slice(2, 10)}`;

async function start(...flags: string[]): Promise<Millrace> {
  const one = new Millrace(flags);
  started.push(one);
  return one.ready();
}

before(async () => {
  database = await createDatabase();
  millrace = await start(`--database-url=${database.url}`, '--sql-produce=on');
  sql = new pg.Client({ connectionString: database.url });
  await sql.connect();
  await eventually(() => enabled(database));
});

after(async () => {
  await sql?.end();
  for (const one of started) one.kill('SIGKILL');
  await Promise.all(started.map(one => one.exited));
  await database?.drop();
  await onServer(client => client.query(`DROP ROLE IF EXISTS ${role}`));
  for (const server of servers) await server.remove();
});

const enabled = async ({ pool }: Pick<TestDatabase, 'pool'>): Promise<boolean> =>
  (await pool.query<{ enabled: boolean }>('SELECT enabled FROM kafka.produce_settings')).rows[0]!.enabled;

async function eventually(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 240_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`never so:\n${started.at(-1)!.stderr}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

interface Stored {
  readonly partition: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly (readonly [string, string | null])[];
}

async function until(topic: string, count: number): Promise<Stored[]> {
  let rows: Stored[] = [];
  await eventually(async () => {
    ({ rows } = await sql.query<Stored>(
      `SELECT partition, key, value,
              (SELECT coalesce(json_agg(json_build_array(h.key, convert_from(h.value, 'UTF8')) ORDER BY n), '[]')
               FROM unnest(headers) WITH ORDINALITY AS h (key, value, n)) AS headers
       FROM kafka.messages WHERE topic = $1 ORDER BY global_offset`,
      [topic],
    ));
    return rows.length >= count;
  });
  return rows;
}

const refusedWith = (statement: string, expected: RegExp) => assert.rejects(sql.query(statement), expected);

test('text, jsonb and bytea; keys, nulls, headers in order, a partition', async () => {
  await sql.query(`BEGIN;
    SELECT kafka.produce('forms', 'żółw'::text, 'key', '{"a": "1", "b": null}');
    SELECT kafka.produce('forms', '{"b": 1,  "a": 1.50}'::jsonb);
    SELECT kafka.produce('forms', '\\x00ff'::bytea, '\\x01'::bytea, '[["r", "1"], ["r", "2"]]');
    SELECT kafka.produce('forms', NULL::bytea, 'tombstone'::bytea);
    COMMIT`);
  const records = await until('forms', 4);
  assert.deepEqual(
    records.map(({ key, value, headers }) => [key?.toString('latin1'), value?.toString(), headers]),
    [
      [
        'key',
        'żółw',
        [
          ['a', '1'],
          ['b', null],
        ],
      ],
      [undefined, '{"a": 1.50, "b": 1}', []],
      [
        '\x01',
        Buffer.from([0, 0xff]).toString(),
        [
          ['r', '1'],
          ['r', '2'],
        ],
      ],
      ['tombstone', undefined, []],
    ],
  );
  await sql.query(`SELECT kafka.produce('forms', 'here'::text, partition => 0)`);
  assert.equal((await until('forms', 5))[4]!.partition, 0);
});

test('what cannot be a record is refused in SQL', async () => {
  await refusedWith(`SELECT kafka.produce('no spaces', 'x'::text)`, /cannot be a topic/);
  await refusedWith(`SELECT kafka.produce('..', 'x'::text)`, /cannot be a topic/);
  await refusedWith(`SELECT kafka.produce(NULL, 'x'::text)`, /cannot be a topic/);
  await refusedWith(`SELECT kafka.produce('forms', 'x'::text, partition => 1000)`, /has no partition 1000/);
  await refusedWith(`SELECT kafka.produce('forms', repeat('x', 2000000))`, /takes batches of 1048588/);
  await refusedWith(
    `SELECT kafka.produce('forms', 'x'::text, headers => '[["a"], [null, "b"]]')`,
    /a header needs a name/,
  );
});

test('what is rolled back, to a savepoint or altogether, is not there; what is kept comes in its order', async () => {
  await sql.query(`BEGIN; SELECT kafka.produce('rolled', 'gone'::text); ROLLBACK`);
  await sql.query(`BEGIN;
    SELECT kafka.produce('rolled', 'first'::text, partition => NULL);
    SAVEPOINT s; SELECT kafka.produce('rolled', 'gone too'::text); ROLLBACK TO s;
    SAVEPOINT r; SELECT kafka.produce('rolled', 'second'::text); RELEASE r; COMMIT`);
  await sql.query(`BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT kafka.produce('rolled', 'third'::text); COMMIT`);
  const records = await until('rolled', 3);
  assert.deepEqual(
    records.map(({ value }) => String(value)),
    ['first', 'second', 'third'],
  );
});

test('nobody without the right makes a record: not by the function, nor by a message like its own', async () => {
  await onServer(client => client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'p' NOREPLICATION`));
  await sql.query(`GRANT USAGE ON SCHEMA kafka TO ${role}`);
  const url = new URL(database.url);
  url.username = role;
  url.password = 'p';
  const poor = new pg.Client({ connectionString: url.href });
  await poor.connect();
  await assert.rejects(poor.query(`SELECT kafka.produce('forged', 'x'::text)`), /permission denied/);
  await assert.rejects(poor.query('SELECT * FROM kafka.produce_key'), /permission denied/);
  await sql.query(`SELECT kafka.produce('forged', 'real'::text)`);
  // The bytes of a real record, sent again in another transaction.
  await onServer(client => client.query(`ALTER ROLE ${role} REPLICATION`));
  // Of no table: without a publication that is there, decoding fails at the first row that Millrace writes meanwhile.
  await sql.query('CREATE PUBLICATION nothing');
  const slot = `forger_${Math.random().toString(36).slice(2)}`;
  await poor.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
  await sql.query(`SELECT kafka.produce('forged', 'real again'::text)`);
  const { rows } = await poor.query<{ data: Buffer }>(
    `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', 'nothing', 'messages', 'true')`,
    [slot],
  );
  await poor.query('SELECT pg_drop_replication_slot($1)', [slot]);
  const prefix = Buffer.from('millrace.produce\0');
  const message = rows.map(row => row.data).find(data => data[0] === 0x4d && data.includes(prefix))!;
  const content = message.subarray(message.indexOf(prefix) + prefix.length + 4);
  await poor.query(`SELECT pg_logical_emit_message(true, 'millrace.produce', $1::bytea)`, [content]);
  await poor.query(`SELECT pg_logical_emit_message(true, 'millrace.produce', 'short')`);
  await poor.end();
  await sql.query(`SELECT kafka.produce('forged', 'last'::text)`);
  const records = await until('forged', 3);
  assert.deepEqual(
    records.map(({ value }) => String(value)),
    ['real', 'real again', 'last'],
  );
});

test('turned off again, it says which slot still holds back WAL', async () => {
  await millrace.stop();
  const off = await start(`--database-url=${database.url}`);
  await off.logged('its replication slot still holds back WAL');
  await refusedWith(`SELECT kafka.produce('forms', 'x'::text)`, /not enabled/);
  const hint = /run: (SELECT pg_drop_replication_slot\('\w+'\)); (DELETE FROM [^"]*)"/.exec(off.stderr)!;
  await off.stop();
  await sql.query(hint[1]!);
  await sql.query(hint[2]!);
  const anew = await start(`--database-url=${database.url}`, '--sql-produce=on');
  await eventually(() => enabled(database));
  await sql.query(`SELECT kafka.produce('forms', 'anew'::text)`);
  await until('forms', 6);
  await anew.stop();
});

/** A Millrace that starts, and says why kafka.produce is off and how to mend that. */
async function startsWithout(url: string, reason: RegExp, hint: RegExp): Promise<Millrace> {
  const one = await start(`--database-url=${url}`, '--sql-produce=on');
  await one.logged('kafka.produce is off');
  const line = one.stderr.split('\n').find(text => text.includes('kafka.produce is off'))!;
  const log = JSON.parse(line) as { reason: string; hint: string };
  assert.match(log.reason, reason);
  assert.match(log.hint, hint);
  assert.equal((await fetch(`${one.http}/readyz`)).status, 200);
  return one;
}

test('without wal_level = logical Millrace starts, and kafka.produce refuses', async () => {
  const server = await startPostgres({ wal_level: 'replica' });
  servers.push(server);
  const one = await startsWithout(server.url, /wal_level is replica/, /ALTER SYSTEM SET wal_level = 'logical'/);
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await assert.rejects(client.query(`SELECT kafka.produce('t', 'x'::text)`), /not enabled/);
  await client.end();
  await one.stop();
});

test('when every slot is taken Millrace starts, and can be told to try again', async () => {
  const server = await startPostgres({ max_replication_slots: '1' });
  servers.push(server);
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await client.query(`SELECT pg_create_physical_replication_slot('taken')`);
  const one = await startsWithout(server.url, /all replication slots are in use/, /max_replication_slots/);
  await client.query(`SELECT pg_drop_replication_slot('taken')`);
  assert.equal((await fetch(`${one.http}/api/captures/sql/resume`, { method: 'POST' })).status, 200);
  const settings = () => client.query<{ enabled: boolean }>('SELECT enabled FROM kafka.produce_settings');
  await eventually(async () => (await settings()).rows[0]!.enabled);
  await client.query(`SELECT kafka.produce('t', 'x'::text)`);
  await client.end();
  await one.stop();
});

test('a role without REPLICATION starts Millrace, and is told what it lacks', async () => {
  const owned = await createDatabase({ empty: true });
  const owner = `owner_${Math.random().toString(36).slice(2, 10)}`;
  const name = new URL(owned.url).pathname.slice(1);
  await onServer(async client => {
    await client.query(`CREATE ROLE ${owner} LOGIN PASSWORD 'p'`);
    await client.query(`GRANT CREATE ON DATABASE ${name} TO ${owner}`);
  });
  const url = new URL(owned.url);
  url.username = owner;
  url.password = 'p';
  const one = await startsWithout(url.href, /lacks REPLICATION/, new RegExp(`ALTER ROLE "${owner}" REPLICATION`));
  await one.stop();
  await owned.drop();
  await onServer(client => client.query(`DROP ROLE ${owner}`));
});
