// Tables that are made, dropped, renamed while a capture streams: all that they hold and all that changes in them comes,
// or it is told. The fold of each topic is its table.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { type CaptureRig, openRig, type RunningCapture } from '../capture-rig.ts';

let rig: CaptureRig;
let url: string;
let sql: pg.Client;
const clients: pg.Client[] = [];

before(async () => {
  rig = await openRig();
  url = rig.database.url;
  sql = await connect();
});
after(async () => {
  await Promise.all(clients.map(client => client.end()));
  await rig.remove();
});

async function connect(connectionString = url): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  client.on('error', () => {});
  await client.connect();
  clients.push(client);
  return client;
}

/** Each test has a schema of its own. */
async function start(name: string, more: object = {}): Promise<RunningCapture> {
  await sql.query(`CREATE SCHEMA IF NOT EXISTS ${name}`);
  const capture = rig.start(name, { tables: [`${name}.*`], format: 'plain', snapshot: 'initial', ...more });
  await capture.reached('streaming');
  return capture;
}

async function folded(topic: string): Promise<Map<number, string>> {
  const rows = new Map<number, string>();
  for (const { key, value } of await rig.records(topic)) {
    const { id } = JSON.parse(key!) as { id: number };
    const { op, data } = value === null ? { op: 'd', data: undefined } : JSON.parse(value);
    if (op === 'd' || op === 'delete') rows.delete(id);
    else rows.set(id, data.v);
  }
  return rows;
}

async function tableOf(table: string): Promise<Map<number, string>> {
  const { rows } = await sql.query<{ id: number; v: string }>(`SELECT id, v FROM ${table}`);
  return new Map(rows.map(({ id, v }) => [id, v]));
}

async function eventually(condition: () => boolean | Promise<boolean>, what: () => unknown): Promise<void> {
  for (const deadline = Date.now() + 240_000; !(await condition()); ) {
    assert.ok(
      Date.now() < deadline,
      `never so: ${JSON.stringify(what(), (_, v) => (typeof v === 'bigint' ? String(v) : v))}`,
    );
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

/** Until the topic's fold is the table, with everything that has been written by now. */
async function same(table: string, capture: RunningCapture): Promise<void> {
  const prefix = table.split('.')[0]!;
  const wanted = await tableOf(table);
  await eventually(async () => {
    const found = await folded(`${prefix}.${table}`);
    return found.size === wanted.size && [...wanted].every(([id, v]) => found.get(id) === v);
  }, capture.status);
}

test('a table that is made later is captured, with the rows of before and what changed meanwhile', async () => {
  const capture = await start('later');
  const other = await connect();
  await sql.query(`CREATE TABLE later.t (id int PRIMARY KEY, v text)`);
  // It has written before the table is published, and goes on long after.
  await other.query(`BEGIN; INSERT INTO later.t SELECT i, 'open' FROM generate_series(1, 50) i`);
  await sql.query(`INSERT INTO later.t SELECT i, 'first' FROM generate_series(100, 5000) i`);
  for (let i = 0; i < 100; i++) {
    await sql.query('UPDATE later.t SET v = $1 WHERE id = $2', [`u${i}`, 100 + i * 7]);
    await sql.query('DELETE FROM later.t WHERE id = $1', [101 + i * 7]);
    await sql.query('INSERT INTO later.t VALUES ($1, $2)', [10_000 + i, 'late']);
  }
  await eventually(() => capture.status().tables.includes('later.t'), capture.status);
  await other.query(
    `INSERT INTO later.t VALUES (60, 'after it was published'); UPDATE later.t SET v = 'open, changed' WHERE id = 1`,
  );
  await sql.query(`INSERT INTO later.t VALUES (70, 'by another, meanwhile')`);
  await other.query('COMMIT');
  await sql.query(`INSERT INTO later.t VALUES (80, 'and then')`);
  await same('later.t', capture);
  assert.deepEqual(capture.states, ['streaming']);
  await capture.finish();
});

test('a transaction from before a table was published does not make the walsender leave it out', async () => {
  // As those before 14.18, 15.13, 16.9 and 17.5 do, if it is the first that they decode.
  const capture = await start('blindly');
  const other = await connect();
  await sql.query('CREATE TABLE blindly.t (id int PRIMARY KEY, v text)');
  await other.query(`BEGIN; INSERT INTO blindly.t VALUES (1, 'before')`);
  await eventually(() => capture.status().tables.includes('blindly.t'), capture.status);
  await other.query(`INSERT INTO blindly.t VALUES (2, 'after'); COMMIT`);
  await eventually(() => capture.status().snapshots.some(({ state }) => state === 'done'), capture.status);
  await sql.query(`INSERT INTO blindly.t VALUES (3, 'when it had been read')`);
  await same('blindly.t', capture);
  await capture.finish();
});

test('rows of a table without a key come once, whether they were read or streamed', async () => {
  const capture = await start('loose');
  for (let round = 0; round < 5; round++) {
    const table = `loose.t${round}`;
    await sql.query(`CREATE TABLE ${table} (id int, v text); ALTER TABLE ${table} REPLICA IDENTITY FULL`);
    for (let i = 0; i < 300; i++) await sql.query(`INSERT INTO ${table} VALUES ($1, 'x')`, [i]);
    const records = await rig.until(`loose.${table}`, found => found.length >= 300);
    const ids = records.map(({ value }) => JSON.parse(value!).data.id as number).sort((a, b) => a - b);
    assert.deepEqual(
      ids,
      Array.from({ length: 300 }, (_, i) => i),
    );
  }
  await capture.finish();
});

test('a table that is dropped and made again, or takes the name of another, is read anew', async () => {
  const capture = await start('again');
  await sql.query(`CREATE TABLE again.t (id int PRIMARY KEY, v text); INSERT INTO again.t VALUES (1, 'one')`);
  await same('again.t', capture);
  await sql.query(`DELETE FROM again.t; DROP TABLE again.t; CREATE TABLE again.t (id int PRIMARY KEY, v text);
    INSERT INTO again.t VALUES (2, 'two')`);
  await same('again.t', capture);
  await sql.query(`CREATE TABLE again.fresh (id int PRIMARY KEY, v text); INSERT INTO again.fresh VALUES (3, 'three')`);
  await same('again.fresh', capture);
  const other = await connect();
  await sql.query('CREATE TABLE again.brief (id int PRIMARY KEY)');
  await other.query('BEGIN; INSERT INTO again.brief VALUES (1)');
  const waits = () => capture.status().snapshots.some(s => s.table === 'again.brief' && s.state !== 'done');
  await eventually(waits, capture.status);
  await other.query('DROP TABLE again.brief; COMMIT');
  await eventually(() => !waits(), capture.status);
  await sql.query(`DELETE FROM again.t`);
  await same('again.t', capture);
  await sql.query(`BEGIN; ALTER TABLE again.t RENAME TO old; ALTER TABLE again.fresh RENAME TO t; COMMIT`);
  await same('again.t', capture);
  assert.deepEqual(capture.states, ['streaming']);
  await capture.finish();
});

test('a transaction that drops a table, and takes its time, holds up nothing', async () => {
  const capture = await start('slow');
  await sql.query(`CREATE TABLE slow.gone (id int PRIMARY KEY, v text); CREATE TABLE slow.stays (id int PRIMARY KEY, v text);
    INSERT INTO slow.stays VALUES (1, 'one')`);
  await same('slow.stays', capture);
  await eventually(() => capture.status().snapshots.every(({ state }) => state === 'done'), capture.status);
  const other = await connect();
  await other.query('BEGIN; DROP TABLE slow.gone');
  await sql.query(`CREATE TABLE slow.fresh (id int PRIMARY KEY, v text); INSERT INTO slow.fresh VALUES (2, 'two')`);
  await same('slow.fresh', capture);
  assert.equal(await capture.resnapshot('slow.stays'), 1);
  const { length } = (await rig.records('slow.slow.stays')).filter(({ value }) => value?.includes('"op":"r"'));
  await rig.until('slow.slow.stays', found => found.filter(({ value }) => value?.includes('"op":"r"')).length > length);
  await other.query('COMMIT');
  await eventually(() => !capture.status().tables.includes('slow.gone'), capture.status);
  assert.deepEqual(capture.states, ['streaming']);
  await capture.finish();
});

test('with snapshot never, the rows of before are told of, and can be read', async () => {
  const capture = await start('alone', { snapshot: 'never' });
  await sql.query(`CREATE TABLE alone.empty (id int PRIMARY KEY, v text)`);
  await sql.query(`CREATE TABLE alone.t (id int PRIMARY KEY, v text); INSERT INTO alone.t VALUES (1, 'before')`);
  await eventually(() => capture.status().tables.length === 2, capture.status);
  const [notice, ...others] = capture.status().notices;
  assert.deepEqual([notice?.table, notice?.captured, others], ['alone.t', true, []]);
  assert.match(notice!.reason, /rows that it had .* are not in its topic/);
  assert.match(notice!.hint, /resnapshot\?table=alone\.t/);
  await sql.query(`INSERT INTO alone.t VALUES (2, 'after')`);
  await rig.until('alone.alone.t', records => records.length === 1);
  assert.equal(await capture.resnapshot('alone.*'), 2);
  await same('alone.t', capture);
  assert.deepEqual(capture.status().notices, []);
  await capture.finish();
});

test('a table whose rows cannot be told apart is left out and told, until it has a key', async () => {
  const capture = await start('keyless');
  await sql.query(`CREATE TABLE keyless.t (id int NOT NULL, v text); INSERT INTO keyless.t VALUES (1, 'restored')`);
  await sql.query(`CREATE TABLE keyless.fine (id int PRIMARY KEY, v text); INSERT INTO keyless.fine VALUES (1, 'x')`);
  await same('keyless.fine', capture);
  await eventually(() => capture.status().notices.length === 1, capture.status);
  const { captured, reason, hint } = capture.status().notices[0]!;
  assert.equal(captured, false);
  assert.match(reason, /cannot be told apart/);
  assert.match(hint, /ALTER TABLE "keyless"\."t" REPLICA IDENTITY FULL/);
  await sql.query(`UPDATE keyless.t SET v = 'changed'`); // would be refused if it were published
  await capture.stop();
  const second = await start('keyless'); // and a restart does not fail of it either
  await eventually(() => second.status().notices.length === 1, second.status);
  await sql.query('ALTER TABLE keyless.t ADD PRIMARY KEY (id)');
  await same('keyless.t', second);
  assert.deepEqual(second.status().notices, []);
  await second.finish();
});

test('a table that the role may not publish, or that has no topic, is left out and told', async () => {
  const role = `replicator_${rig.suffix}`;
  await sql.query(
    `CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'p'; GRANT CREATE ON DATABASE ${new URL(url).pathname.slice(1)} TO ${role}`,
  );
  const source = new URL(url);
  source.username = role;
  source.password = 'p';
  const owner = await connect(source.href);
  await owner.query('CREATE SCHEMA poor; CREATE TABLE poor.own (id int PRIMARY KEY, v text)');
  const capture = await start('poor', { source: source.href });
  await sql.query(`CREATE TABLE poor.theirs (id int PRIMARY KEY, v text)`);
  await owner.query(`CREATE TABLE poor."own_" (id int PRIMARY KEY); CREATE TABLE poor."own." (id int PRIMARY KEY)`);
  await eventually(() => capture.status().notices.length === 2, capture.status);
  const notices = [...capture.status().notices].sort((a, b) => (a.table < b.table ? -1 : 1));
  assert.match(notices[0]!.reason, /cannot go to topic poor\.poor\.own/);
  assert.match(notices[0]!.hint, /exclude/);
  assert.deepEqual([notices[1]!.table, notices[1]!.captured], ['poor.theirs', false]);
  assert.match(notices[1]!.hint, /ADD TABLE "poor"\."theirs"/);
  await owner.query(`INSERT INTO poor.own VALUES (1, 'goes on')`);
  await same('poor.own', capture);
  await capture.finish();
  await sql.query(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`);
});

test('stopped at any moment while a table is taken in, nothing of it is missed', { timeout: 300_000 }, async () => {
  let capture = await start('stopped');
  for (let round = 0; round < 12; round++) {
    const table = `stopped.t${round}`;
    await sql.query(
      `CREATE TABLE ${table} (id int PRIMARY KEY, v text); INSERT INTO ${table} SELECT i, 'a' FROM generate_series(1, 3000) i`,
    );
    const writing = (async () => {
      for (let i = 0; i < 30; i++) {
        await sql.query(`INSERT INTO ${table} VALUES ($1, 'w')`, [10_000 + i]);
        await sql.query(`DELETE FROM ${table} WHERE id = $1`, [1 + i * 13]);
      }
    })();
    await new Promise(resolve => setTimeout(resolve, Math.random() * 150)); // the moment of the stop, not a wait
    await capture.stop();
    await writing;
    capture = await start('stopped');
    await same(table, capture);
  }
  await capture.finish();
});
