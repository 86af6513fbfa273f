// The transaction topic and the block `transaction` of events, as a reader sees them; and schemas around both.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type pg from 'pg';
import { type CapturedRecord, type CaptureRig, openRig } from '../../test/capture-rig.ts';

let rig: CaptureRig;
let sql: pg.PoolClient;

before(async () => {
  rig = await openRig();
  sql = await rig.database.pool.connect();
  await sql.query(
    'CREATE TABLE a (id int PRIMARY KEY, note text); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE other (id int)',
  );
});

after(async () => {
  sql?.release();
  await rig?.remove();
});

interface Boundary {
  readonly status: string;
  readonly id: string;
  readonly event_count: number | null;
  readonly data_collections: readonly { readonly data_collection: string; readonly event_count: number }[] | null;
}

const valuesOf = <T>(records: readonly CapturedRecord[]): T[] =>
  records.flatMap(({ value }) => (value === null ? [] : [JSON.parse(value) as T]));

interface Event {
  readonly op: string;
  readonly source: { readonly txId: number; readonly lsn: number };
  readonly transaction: { readonly id: string; readonly total_order: number; readonly data_collection_order: number };
}

const placeOf = ({ op, transaction }: Event): string =>
  `${op} ${transaction.total_order} ${transaction.data_collection_order}`;

test('a transaction begins with its first event, and ends with how many of each table there were', async () => {
  const capture = rig.start('tx', { tables: ['public.a', 'public.b'], transactionMetadata: true });
  await capture.reached('streaming');
  await sql.query(`BEGIN; INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1); UPDATE a SET id = 3 WHERE id = 2; DELETE FROM a WHERE id = 1;
    SELECT pg_logical_emit_message(true, 'note', 'x'); COMMIT`);
  await sql.query('BEGIN; INSERT INTO a VALUES (7); ROLLBACK');
  await sql.query('INSERT INTO other VALUES (1)');
  await sql.query('TRUNCATE a, b');
  const records = await rig.until('tx.transaction', found => found.length >= 4);
  assert.equal(records.length, 4);
  const [begin, end, second, last] = valuesOf<Boundary>(records);
  const events = valuesOf<Event>(await rig.records('tx.public.a'));
  assert.deepEqual(events.map(placeOf), ['c 1 1', 'c 2 2', 'd 4 3', 'c 5 4', 'd 6 5', 't 1 1']);
  for (const { source, transaction } of events) assert.equal(transaction.id, `${source.txId}:${source.lsn}`);
  assert.deepEqual(valuesOf<Event>(await rig.records('tx.public.b')).map(placeOf), ['c 3 1', 't 2 1']);
  assert.deepEqual(valuesOf<Event>(await rig.records('tx.message')).map(placeOf), ['m 7 1']);

  assert.deepEqual([begin!.status, begin!.event_count, begin!.data_collections], ['BEGIN', null, null]);
  assert.equal(begin!.id, events[0]!.transaction.id);
  assert.deepEqual([end!.status, end!.event_count, second!.status, last!.event_count], ['END', 7, 'BEGIN', 2]);
  assert.deepEqual(end!.data_collections, [
    { data_collection: 'public.a', event_count: 5 },
    { data_collection: 'public.b', event_count: 1 },
    { data_collection: 'message', event_count: 1 },
  ]);
  assert.deepEqual(
    records.map(({ key }) => key),
    [begin, end, second, last].map(each => JSON.stringify({ id: each!.id })),
  );
  const [first] = records;
  assert.equal(first!.headers.commit_lsn, records[1]!.headers.commit_lsn);
  await capture.finish();
});

test('a transaction of more tables than its end has room for tells how many events there were', async () => {
  const config = { 'max.message.bytes': '450' };
  await rig.context.topics.create({ name: 'crowd.transaction', partitionCount: 1, config });
  const names = Array.from({ length: 6 }, (_, i) => `crowd_table_with_a_long_name_${i}`);
  for (const name of names) await sql.query(`CREATE TABLE ${name} (id int PRIMARY KEY)`);
  const capture = rig.start('crowd', { tables: ['public.crowd_*'], transactionMetadata: true });
  await capture.reached('streaming');
  await sql.query(`BEGIN; ${names.map(name => `INSERT INTO ${name} VALUES (1)`).join('; ')}; COMMIT`);
  await sql.query(`INSERT INTO ${names[0]} VALUES (2)`);
  const ends = valuesOf<Boundary>(await rig.until('crowd.transaction', found => found.length >= 4)).filter(
    ({ status }) => status === 'END',
  );
  assert.deepEqual(
    ends.map(({ event_count, data_collections }) => [event_count, data_collections?.length]),
    [
      [6, undefined],
      [1, 1],
    ],
  );
  await capture.finish();
});

test('a transaction that the server streams is counted as it was committed, and told once over a restart', async () => {
  await sql.query(
    `ALTER DATABASE ${new URL(rig.database.url).pathname.slice(1)} SET logical_decoding_work_mem = '64kB'`,
  );
  const definition = { tables: ['public.a', 'public.b'], transactionMetadata: true, schemas: true };
  let capture = rig.start('streamed', definition);
  await capture.reached('streaming');
  await sql.query(`BEGIN; INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1, 3000) i;
    SAVEPOINT s; INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(3001, 6000) i; ROLLBACK TO s;
    INSERT INTO b SELECT i FROM generate_series(1, 500) i; COMMIT`);
  await rig.until('streamed.transaction', found => found.length >= 2);
  assert.ok(capture.status().spooledBytes > 0, 'the server did not stream it');
  await capture.stop();
  await sql.query('DELETE FROM b WHERE id = 1');
  capture = rig.start('streamed', definition);
  const records = await rig.until('streamed.transaction', found => found.length >= 4);
  assert.equal(records.length, 4);
  const [begin, end, , last] = valuesOf<{ schema: { name: string }; payload: Boundary }>(records);
  assert.equal(begin!.schema.name, 'io.debezium.connector.common.TransactionMetadataValue');
  assert.equal(begin!.payload.status, 'BEGIN');
  assert.deepEqual(end!.payload.data_collections, [
    { data_collection: 'public.a', event_count: 3000 },
    { data_collection: 'public.b', event_count: 500 },
  ]);
  assert.equal(last!.payload.event_count, 1);
  const rows = valuesOf<{ schema: { name: string }; payload: Event }>(await rig.records('streamed.public.b'));
  assert.equal(rows[0]!.schema.name, 'streamed.public.b.Envelope');
  assert.deepEqual(
    rows.slice(0, 500).map(({ payload }) => payload.transaction.total_order),
    Array.from({ length: 500 }, (_, i) => 3001 + i),
  );
  const { key } = (await rig.records('streamed.public.b'))[0]!;
  assert.deepEqual(JSON.parse(key!), {
    schema: {
      type: 'struct',
      fields: [{ type: 'int32', optional: false, field: 'id' }],
      optional: false,
      name: 'streamed.public.b.Key',
    },
    payload: { id: 1 },
  });
  await capture.finish();
});

test('rows that a snapshot has read are in no transaction', async () => {
  const capture = rig.start('read', { tables: ['public.b'], transactionMetadata: true, snapshot: 'initial' });
  const events = valuesOf<Event>(await rig.until('read.public.b', found => found.length >= 499));
  assert.ok(events.every(({ op, transaction }) => op === 'r' && transaction === null));
  assert.deepEqual(await rig.records('read.transaction'), []);
  await capture.finish();
});
