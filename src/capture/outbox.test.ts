// Debezium's outbox table, from rows to records.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type pg from 'pg';
import { type CaptureRig, openRig } from '../../test/capture-rig.ts';

let rig: CaptureRig;
let sql: pg.PoolClient;

const columns =
  'id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text, type text';

before(async () => {
  rig = await openRig();
  sql = await rig.database.pool.connect();
  await sql.query(`CREATE TABLE outbox (${columns}, payload jsonb); CREATE TABLE orders (id int PRIMARY KEY)`);
});

after(async () => {
  sql?.release();
  await rig?.remove();
});

const insert = (route: string, key: string | null, type: string | null, payload: string | null, table = 'outbox') =>
  sql.query(`INSERT INTO ${table} (aggregatetype, aggregateid, type, payload) VALUES ($1, $2, $3, $4)`, [
    route,
    key,
    type,
    payload,
  ]);

test('an insert is a record: topic, key, headers and payload from its columns; updates and deletes are none', async () => {
  const outbox = rig.start('shop', { tables: ['public.*'], outbox: { table: 'public.outbox' }, format: 'plain' });
  await outbox.reached('streaming');
  await sql.query('BEGIN');
  await sql.query('INSERT INTO orders VALUES (1)');
  await sql.query(
    `INSERT INTO outbox VALUES ('3f333df6-90a4-4fda-8dd3-9485d27cee36', 'order', '1', 'OrderPlaced', '{"b": 1.50, "a": "żółw"}')`,
  );
  await sql.query(`UPDATE outbox SET type = 'changed'`);
  await sql.query('DELETE FROM outbox');
  await sql.query('COMMIT');
  await sql.query('BEGIN');
  await insert('order', '1', 'Never', '{}');
  await sql.query('ROLLBACK');
  await insert('order', '1', null, null);
  await insert('order', null, 'Keyless', '[]');
  await sql.query('TRUNCATE outbox');
  const records = await rig.until('outbox.event.order', found => found.length >= 3);
  const [placed, tombstone, keyless] = records;
  assert.deepEqual([placed!.key, placed!.value], ['1', '{"a": "żółw", "b": 1.50}']);
  const { id, eventType, commit_lsn, ordinal } = placed!.headers;
  assert.deepEqual([id, eventType, ordinal], ['3f333df6-90a4-4fda-8dd3-9485d27cee36', 'OrderPlaced', '1']);
  assert.match(commit_lsn!, /^[0-9A-F]+\/[0-9A-F]+$/);
  assert.deepEqual([tombstone!.key, tombstone!.value, tombstone!.headers.eventType], ['1', null, undefined]);
  assert.deepEqual([keyless!.key, keyless!.value], [null, '[]']);
  // The row beside it was captured as a row, the outbox itself was not.
  assert.equal((await rig.until('shop.public.orders', found => found.length >= 1)).length, 1);
  assert.deepEqual(await rig.records('shop.public.outbox'), []);
  assert.equal((await rig.records('outbox.event.order')).length, 3);
  await outbox.finish();
});

test('payloads of text and bytea come as they are, and the topic is a pattern', async () => {
  await sql.query(
    `CREATE TABLE outbox_text (${columns}, payload text); CREATE TABLE outbox_bytes (${columns}, payload bytea)`,
  );
  for (const [table, payload] of [
    ['outbox_text', '{ "spaces":  "stay" }'],
    ['outbox_bytes', 'plain bytes'],
  ] as const) {
    const outbox = rig.start(table, {
      tables: ['public.none'],
      outbox: { table: `public.${table}`, topic: `${table}.{route}.v1` },
    });
    await outbox.reached('streaming');
    await insert('Über route', 'k', 't', payload, table);
    const [record] = await rig.until(`${table}._ber_route.v1`, found => found.length >= 1);
    assert.equal(record!.value, payload);
    await outbox.finish();
  }
});

test('one aggregate’s events keep their order over many transactions and partitions', async () => {
  const outbox = rig.start('ordered', {
    tables: ['public.none'],
    outbox: { table: 'public.outbox', topic: 'ordered.{route}' },
    partitions: 4,
  });
  await outbox.reached('streaming');
  for (let n = 0; n < 100; n++) await insert('a', String(n % 7), 't', String(n));
  const records = await rig.until('ordered.a', found => found.length >= 100);
  for (let key = 0; key < 7; key++) {
    const ofKey = records.filter(record => record.key === String(key));
    assert.equal(new Set(ofKey.map(({ partition }) => partition)).size, 1);
    const values = ofKey.map(({ value }) => Number(value));
    assert.deepEqual(
      values,
      Array.from({ length: values.length }, (_, i) => key + i * 7),
    );
  }
  await outbox.finish();
});

test('an event that no topic can take goes to the dead letters, and the next go on', async () => {
  const outbox = rig.start('poisoned', {
    tables: ['public.none'],
    outbox: { table: 'public.outbox', topic: 'poisoned.{route}' },
    topicConfig: { 'max.message.bytes': '5000' },
  });
  await outbox.reached('streaming');
  await insert('a.b', 'first', 't', '1');
  await insert('a_b', 'collides', 't', '2');
  await insert('x'.repeat(300), 'too long', 't', '3');
  await insert('a.b', 'too large', 't', JSON.stringify('y'.repeat(6000)));
  await insert('a.b', 'last', 't', '4');
  const records = await rig.until('poisoned.a.b', found => found.length >= 2);
  assert.deepEqual(
    records.map(({ key }) => key),
    ['first', 'last'],
  );
  const dead = await rig.until('poisoned.dead-letter', found => found.length >= 3);
  assert.deepEqual(
    dead.map(({ key }) => key),
    ['collides', 'too long', 'too large'],
  );
  assert.deepEqual(
    dead.map(({ headers }) => headers.topic),
    ['poisoned.a_b', `poisoned.${'x'.repeat(300)}`, 'poisoned.a.b'],
  );
  assert.ok(dead.every(({ headers }) => headers.reason !== ''));
  assert.deepEqual(outbox.states, ['streaming']);
  await outbox.finish();
});

test('an outbox without its columns is told which it lacks', async () => {
  await sql.query('CREATE TABLE outbox_short (id int PRIMARY KEY, aggregatetype text, payload text)');
  const outbox = rig.start('short', { tables: ['public.none'], outbox: { table: 'public.outbox_short' } });
  await outbox.reached('streaming');
  await sql.query(`INSERT INTO outbox_short VALUES (1, 'a', 'p')`);
  const { reason } = await outbox.reached('failed');
  assert.match(reason!, /public\.outbox_short lacks the column aggregateid/);
  await outbox.finish();
});
