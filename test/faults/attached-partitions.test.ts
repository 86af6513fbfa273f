// Partitions that are attached with rows: what they bring is read, and what the stream has brought is not read again.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { type CaptureRig, openRig, type RunningCapture } from '../capture-rig.ts';

let rig: CaptureRig;
let sql: pg.Client;

before(async () => {
  rig = await openRig();
  sql = new pg.Client({ connectionString: rig.database.url });
  await sql.connect();
});
after(async () => {
  await sql.end();
  await rig.remove();
});

/** Each test has a schema of its own, with a partitioned table `t`. */
async function start(name: string, key: string, more: object = {}): Promise<RunningCapture> {
  await sql.query(`CREATE SCHEMA ${name}; CREATE TABLE ${name}.t (id int ${key}, v text) PARTITION BY RANGE (id)`);
  if (key === '') await sql.query(`ALTER TABLE ${name}.t REPLICA IDENTITY FULL`);
  return begin(name, more);
}

async function begin(name: string, more: object = {}): Promise<RunningCapture> {
  const capture = rig.start(name, { tables: [`${name}.t`], format: 'plain', snapshot: 'initial', ...more });
  await capture.reached('streaming');
  await rig.holds(() => capture.status().snapshots.every(({ state }) => state === 'done'));
  return capture;
}

const range = (from: number) => `FOR VALUES FROM (${from}) TO (${from + 100})`;

/** The ops of each row, in their order; a delete's tombstone is none. */
async function ops(topic: string): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  for (const { value } of await rig.records(topic)) {
    if (value === null) continue;
    const { op, data, old } = JSON.parse(value) as { op: string; data?: { id: number }; old?: { id: number } };
    const { id } = (data ?? old)!;
    found.set(id, (found.get(id) ?? '') + op);
  }
  return found;
}

async function until(topic: string, id: number, wanted: string): Promise<Map<number, string>> {
  for (const deadline = Date.now() + 60_000; ; ) {
    const found = await ops(topic);
    if (found.get(id) === wanted) return found;
    assert.ok(Date.now() < deadline, `${id} never came as ${wanted}: ${JSON.stringify([...found])}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

const part = (name: string, from: number, rows: string) =>
  `CREATE TABLE ${name}.p${from} (LIKE ${name}.t INCLUDING ALL); INSERT INTO ${name}.p${from} ${rows}`;
const attach = (name: string, from: number) => `ALTER TABLE ${name}.t ATTACH PARTITION ${name}.p${from} ${range(from)}`;

test('rows that a partition has when it is attached are read, and its changes streamed', async () => {
  const capture = await start('brought', 'PRIMARY KEY');
  const topic = 'brought.brought.t';
  await sql.query(
    `CREATE TABLE brought.first PARTITION OF brought.t ${range(0)}; INSERT INTO brought.t VALUES (1, 'a')`,
  );
  await until(topic, 1, 'c');
  await sql.query(part('brought', 100, `SELECT i, 'before' FROM generate_series(100, 119) i`));
  await sql.query(attach('brought', 100));
  await sql.query(`INSERT INTO brought.t VALUES (150, 'after'); UPDATE brought.t SET v = 'changed' WHERE id = 1`);
  const found = await until(topic, 119, 'r');
  for (let id = 100; id < 119; id++) assert.equal(found.get(id), 'r', String(id));
  // Made, filled and attached in one transaction.
  await sql.query(`BEGIN; ${part('brought', 200, `VALUES (200, 'at once')`)}; ${attach('brought', 200)}; COMMIT`);
  await until(topic, 200, 'r');
  // Rows that are moved: the stream has brought that they are gone from where they were.
  await sql.query(
    `CREATE TABLE brought.others PARTITION OF brought.t DEFAULT; INSERT INTO brought.t VALUES (300, 'moves')`,
  );
  await until(topic, 300, 'c');
  await sql.query(`BEGIN; CREATE TABLE brought.p300 (LIKE brought.t INCLUDING ALL);
    WITH moved AS (DELETE FROM brought.t WHERE id = 300 RETURNING *) INSERT INTO brought.p300 SELECT * FROM moved;
    ${attach('brought', 300)}; COMMIT`);
  await until(topic, 300, 'cdr');
  // One that is made as a partition, of a part that is partitioned itself, which is attached.
  await sql.query(`CREATE TABLE brought.p400 (LIKE brought.t INCLUDING ALL) PARTITION BY RANGE (id);
    CREATE TABLE brought.inner PARTITION OF brought.p400 ${range(400)}; INSERT INTO brought.inner VALUES (400, 'inner')`);
  await sql.query(attach('brought', 400));
  const all = await until(topic, 400, 'r');
  assert.equal(all.get(1), 'cu', 'a partition that was there was read again');
  assert.match(all.get(150)!, /^(c|r|cr|rc)$/); // streamed, or read with the others, or both
  assert.deepEqual(capture.states, ['streaming']);
  await capture.finish();
});

test('one that is attached while nobody captures is read afterwards; one that was made is streamed alone', async () => {
  const first = await start('meanwhile', 'PRIMARY KEY');
  const topic = 'meanwhile.meanwhile.t';
  await sql.query(
    `CREATE TABLE meanwhile.p PARTITION OF meanwhile.t ${range(0)}; INSERT INTO meanwhile.t VALUES (1, 'a')`,
  );
  await until(topic, 1, 'c');
  await first.stop();
  await sql.query(part('meanwhile', 100, `VALUES (100, 'before')`));
  await sql.query(attach('meanwhile', 100));
  await sql.query(
    `CREATE TABLE meanwhile.q PARTITION OF meanwhile.t ${range(200)}; INSERT INTO meanwhile.t VALUES (200, 'b')`,
  );
  const second = await begin('meanwhile');
  const found = await until(topic, 100, 'r');
  assert.deepEqual([found.get(1), found.get(200)], ['c', 'c']);
  // Detached, filled and attached again.
  await sql.query(
    `ALTER TABLE meanwhile.t DETACH PARTITION meanwhile.p100; INSERT INTO meanwhile.p100 VALUES (101, 'apart')`,
  );
  const known = async () => {
    const { rows } = await sql.query<{ count: number }>(
      `SELECT cardinality(leaves) AS count FROM kafka.capture_partitions WHERE relation_id = 'meanwhile.t'::regclass`,
    );
    return rows[0]!.count;
  };
  for (const deadline = Date.now() + 60_000; (await known()) !== 2; ) {
    assert.ok(Date.now() < deadline, 'never forgotten');
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  await sql.query(attach('meanwhile', 100));
  await until(topic, 101, 'r');
  await second.finish();
});

test('without a key, rows that it brings come once', async () => {
  const capture = await start('keyless', '');
  await sql.query(part('keyless', 100, `SELECT i, 'before' FROM generate_series(100, 104) i`));
  await sql.query(attach('keyless', 100));
  const found = await until('keyless.keyless.t', 104, 'r');
  assert.deepEqual(
    [...found],
    [100, 101, 102, 103, 104].map(id => [id, 'r']),
  );
  await sql.query(`INSERT INTO keyless.t VALUES (110, 'after')`);
  await until('keyless.keyless.t', 110, 'c');
  await capture.finish();
});

test('with snapshot never it is told, and the table can be read', async () => {
  const capture = await start('told', 'PRIMARY KEY', { snapshot: 'never' });
  await sql.query(part('told', 100, `VALUES (100, 'before')`));
  await sql.query(attach('told', 100));
  await rig.holds(() => capture.status().notices.length === 1);
  const [notice] = capture.status().notices;
  assert.equal(notice!.captured, true);
  assert.match(notice!.reason, /rows that told\.p100 had when it was attached are not in its topic/);
  assert.match(notice!.hint, /resnapshot\?table=told\.t/);
  assert.equal(await capture.resnapshot('told.t'), 1);
  await until('told.told.t', 100, 'r');
  assert.deepEqual(capture.status().notices, []);
  await capture.finish();
});
