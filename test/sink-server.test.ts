// Sinks from outside: a whole Millrace with a file, Kafka clients, HTTP.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { createDatabase, type TestDatabase } from './database.ts';
import { Millrace } from './millrace.ts';
import { eventually } from './open-log.ts';

const directory = mkdtempSync(join(tmpdir(), 'millrace-sinks-'));
const file = join(directory, 'millrace.yaml');
let database: TestDatabase;
let millrace: Millrace;

async function start(yaml: string): Promise<Millrace> {
  writeFileSync(file, yaml);
  millrace = new Millrace([`--config=${file}`, `--database-url=${database.url}`, '--kafka=127.0.0.1:0']);
  return millrace;
}

before(async () => {
  database = await createDatabase();
});
after(async () => {
  await millrace?.stop('SIGKILL');
  await database.drop();
  rmSync(directory, { recursive: true, force: true });
});

interface Status {
  state: string;
  lag: number;
  group: string;
}

async function status(): Promise<Status> {
  const [first] = (await (await fetch(`${millrace.http}/api/sinks`)).json()) as Status[];
  return first!;
}

const post = (path: string, headers: Record<string, string> = {}) =>
  fetch(`${millrace.http}/api/sinks/${path}`, { method: 'POST', headers });

const make = (name: string, definition: object) =>
  fetch(`${millrace.http}/api/sinks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name, definition }),
  });

test('a definition that cannot be understood ends the start, with file, key and what was expected', async () => {
  for (const [yaml, expected] of [
    [
      'sinks: {orders: {topics: [a], mode: merge}}',
      /sinks\.orders\.mode in .*millrace\.yaml is "merge"; give insert, upsert or update/,
    ],
    [
      'sinks: {a: {topics: [a], group: g}, b: {topics: [b], group: g}}',
      /sinks a and b have the same group g; give each its own/,
    ],
  ] as const) {
    await start(yaml);
    const { code } = await millrace.exited;
    assert.equal(code, 2, `${yaml}: ${millrace.stderr}`);
    assert.match(millrace.stderr, expected);
  }
});

test('records of Kafka clients are rows; the group, its reset and the sink’s state are seen and changed from outside', async () => {
  await database.pool.query('CREATE TABLE orders (id int PRIMARY KEY, item text)');
  await (await start('sinks: {orders: {topics: [orders], lingerMs: 0}}')).ready();
  const broker = /Kafka +(127\.0\.0\.1:\d+)/.exec(millrace.stdout)![1]!;
  const kafka = new kafkajs.Kafka({ brokers: [broker], logLevel: kafkajs.logLevel.NOTHING });
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  const send = (id: number, item: string) =>
    producer.send({ topic: 'orders', messages: [{ key: `{"id":${id}}`, value: JSON.stringify({ item }) }] });
  assert.equal((await status()).state, 'waiting');
  const rows = async () => (await database.pool.query('SELECT * FROM orders ORDER BY id')).rows;
  await send(1, 'tea');
  await eventually(async () => (await rows()).length === 1);

  const admin = kafka.admin();
  await admin.connect();
  const { groups } = await admin.describeGroups(['sink-orders']);
  assert.equal(groups[0]!.state, 'Empty');
  const [offsets] = await admin.fetchOffsets({ groupId: 'sink-orders', topics: ['orders'] });
  assert.equal(offsets!.partitions[0]!.offset, '1');

  assert.equal((await post('orders/pause')).status, 200);
  await send(2, 'milk');
  assert.equal((await status()).state, 'paused');
  await millrace.stop();
  await (await start('sinks: {orders: {topics: [orders], lingerMs: 0}}')).ready();
  assert.equal((await status()).state, 'paused');
  assert.equal((await rows()).length, 1);
  assert.equal((await post('orders/resume')).status, 200);
  await eventually(async () => (await rows()).length === 2);

  // From the beginning again, into a table that has been emptied.
  await database.pool.query('TRUNCATE orders');
  assert.equal((await post('orders/reset?to=earliest')).status, 200);
  await eventually(async () => (await rows()).length === 2);
  assert.equal((await post('orders/restart')).status, 200);

  assert.equal((await post('orders/reset')).status, 400);
  assert.equal((await post('nowhere/pause')).status, 404);
  assert.equal((await post('orders/explode')).status, 404);
  assert.equal((await post('orders/pause', { origin: 'http://elsewhere' })).status, 403);

  // One made over HTTP is there again after a restart, and gone once it is deleted.
  await database.pool.query('CREATE TABLE copies (id int PRIMARY KEY, item text)');
  assert.equal((await make('orders', { topics: ['orders'] })).status, 409);
  assert.match(
    await (await make('copies', { topics: ['orders'], tables: 'x' })).text(),
    /sinks\.copies\.tables is not a setting/,
  );
  assert.equal((await make('copies', { topics: ['orders'], table: 'copies', lingerMs: 0 })).status, 201);
  // This Millrace once more, as a remote Kafka.
  await database.pool.query('CREATE TABLE afar (id int PRIMARY KEY, item text)');
  const source = (bootstrap: string) => ({ topics: ['orders'], table: 'afar', source: { bootstrap }, lingerMs: 0 });
  assert.match(await (await make('afar', source('here'))).text(), /sinks\.afar\.source\.bootstrap\.0/);
  const address = /Kafka +(127\.0\.0\.1:\d+)/.exec(millrace.stdout)![1]!;
  assert.equal((await make('afar', source(address))).status, 201);
  const afar = async () => (await database.pool.query('SELECT FROM afar')).rowCount;
  await eventually(async () => (await afar()) === 2);
  await database.pool.query('TRUNCATE afar');
  assert.equal((await post('afar/reset?to=earliest')).status, 200);
  await eventually(async () => (await afar()) === 2);
  assert.equal((await fetch(`${millrace.http}/api/sinks/afar`, { method: 'DELETE' })).status, 200);
  const copies = async () => (await database.pool.query('SELECT FROM copies')).rowCount;
  await eventually(async () => (await copies()) === 2);
  await millrace.stop();
  await (await start('sinks: {orders: {topics: [orders], lingerMs: 0}}')).ready();
  const again = /Kafka +(127\.0\.0\.1:\d+)/.exec(millrace.stdout)![1]!;
  const later = new kafkajs.Kafka({ brokers: [again], logLevel: kafkajs.logLevel.NOTHING }).producer({
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  });
  await later.connect();
  await later.send({ topic: 'orders', messages: [{ key: '{"id":3}', value: '{"item":"jam"}' }] });
  await later.disconnect();
  await eventually(async () => (await copies()) === 3 && (await rows()).length === 3);
  const remove = (name: string) => fetch(`${millrace.http}/api/sinks/${name}`, { method: 'DELETE' });
  assert.equal((await remove('orders')).status, 409);
  assert.equal((await remove('copies')).status, 200);
  const left = await database.pool.query('SELECT DISTINCT group_id AS id FROM kafka.consumer_offsets');
  assert.deepEqual(left.rows, [{ id: 'sink-orders' }]);
  const metrics = await (await fetch(`${millrace.http}/metrics`)).text();
  assert.match(metrics, /millrace_sink_rows_total\{sink="orders"\} [1-9]/);
  await producer.disconnect();
  await admin.disconnect();
  assert.deepEqual(await millrace.stop(), { code: 0, signal: null });
});
