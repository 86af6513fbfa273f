// What a capture makes of changes that are not plain rows in plain tables, and of rows that cannot be taken as they are.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type pg from 'pg';
import { type CapturedRecord, type CaptureRig, openRig } from '../capture-rig.ts';

let rig: CaptureRig;
let sql: pg.PoolClient;

before(async () => {
  rig = await openRig();
  sql = await rig.database.pool.connect();
});

after(async () => {
  sql?.release();
  await rig?.remove();
});

interface Change {
  readonly op: string;
  readonly data: Record<string, unknown> | null;
  readonly old?: Record<string, unknown>;
  readonly meta: { readonly xid: number; readonly ordinal: number; readonly unchanged?: string[] };
}

const changeOf = ({ value }: CapturedRecord): Change => JSON.parse(value!) as Change;
const changesOf = (records: readonly CapturedRecord[]) => records.filter(({ value }) => value !== null).map(changeOf);
const opsOf = (records: readonly CapturedRecord[]) =>
  changesOf(records).map(({ op, data }) => `${op} ${JSON.stringify(data)}`);
const count = (n: number) => (records: readonly CapturedRecord[]) => records.length >= n;

test('a table that changes while it is captured: each row with the columns it was written with', async () => {
  await sql.query(`CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE ddl (id int PRIMARY KEY, a int, m mood)`);
  const ddl = rig.start('ddl', { tables: ['public.ddl*'], format: 'plain' });
  await ddl.reached('streaming');
  await sql.query(`INSERT INTO ddl VALUES (1, 1, 'sad')`);
  await sql.query(`BEGIN; INSERT INTO ddl VALUES (2, 2, NULL); ALTER TABLE ddl ADD COLUMN b text DEFAULT 'new';
    INSERT INTO ddl VALUES (3, 3, NULL); ALTER TABLE ddl RENAME COLUMN a TO c; UPDATE ddl SET c = 4 WHERE id = 3; COMMIT`);
  await sql.query(`ALTER TYPE mood ADD VALUE 'fine'`);
  await sql.query(`INSERT INTO ddl VALUES (4, 4, 'fine')`);
  await sql.query(`ALTER TABLE ddl ALTER c TYPE text USING 'x' || c; INSERT INTO ddl VALUES (5, 'five')`);
  await sql.query(`ALTER TABLE ddl DROP COLUMN m; INSERT INTO ddl VALUES (6, 'six', 'b')`);
  await sql.query(`ALTER TABLE ddl RENAME TO ddl_renamed; INSERT INTO ddl_renamed VALUES (7, 'seven', 'b')`);
  await rig.until('ddl.public.ddl_renamed', count(1));
  assert.deepEqual(opsOf(await rig.records('ddl.public.ddl')), [
    'c {"id":1,"a":1,"m":"sad"}',
    'c {"id":2,"a":2,"m":null}',
    'c {"id":3,"a":3,"m":null,"b":"new"}',
    'u {"id":3,"c":4,"m":null,"b":"new"}',
    'c {"id":4,"c":4,"m":"fine","b":"new"}',
    'c {"id":5,"c":"five","m":null,"b":"new"}',
    'c {"id":6,"c":"six","b":"b"}',
  ]);
  assert.deepEqual(opsOf(await rig.records('ddl.public.ddl_renamed')), ['c {"id":7,"c":"seven","b":"b"}']);
  assert.deepEqual(ddl.states, ['streaming'], 'nothing of it broke the stream');
  await ddl.finish();
});

test('a primary key that is dropped and made anew while it is captured, with a column that it only includes', async () => {
  await sql.query('CREATE TABLE rekeyed (id int PRIMARY KEY, other int NOT NULL)');
  const rekeyed = rig.start('rekeyed', { tables: ['public.rekeyed'], format: 'plain' });
  await rekeyed.reached('streaming');
  await sql.query('INSERT INTO rekeyed VALUES (1, 10)');
  await rig.until('rekeyed.public.rekeyed', count(1));
  await sql.query('ALTER TABLE rekeyed DROP CONSTRAINT rekeyed_pkey, ADD PRIMARY KEY (other) INCLUDE (id)');
  await sql.query('INSERT INTO rekeyed VALUES (1, 11)');
  const records = await rig.until('rekeyed.public.rekeyed', count(2));
  assert.deepEqual(
    records.map(({ key }) => key),
    ['{"id":1}', '{"other":11}'],
  );
  await rekeyed.finish();
});

test('unchanged TOAST is told from null and from every string; with a full identity the value is there', async () => {
  await sql.query(`CREATE TABLE toasted (id int PRIMARY KEY, big text, small int); ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE toasted_full (LIKE toasted INCLUDING ALL); ALTER TABLE toasted_full REPLICA IDENTITY FULL`);
  const plain = rig.start('toast_plain', { tables: ['public.toasted*'], format: 'plain' });
  const debezium = rig.start('toast_debezium', { tables: ['public.toasted'], format: 'debezium' });
  await Promise.all([plain.reached('streaming'), debezium.reached('streaming')]);
  for (const table of ['toasted', 'toasted_full']) {
    await sql.query(`INSERT INTO ${table} VALUES (1, repeat('x', 9000), 0)`);
    await sql.query(`UPDATE ${table} SET small = 1`);
    await sql.query(`UPDATE ${table} SET id = 2`);
    await sql.query(`UPDATE ${table} SET big = NULL`);
    await sql.query(`UPDATE ${table} SET big = '__debezium_unavailable_value'`);
  }
  const x = 'x'.repeat(9000);
  const records = await rig.until('toast_plain.public.toasted', count(7));
  const seen = changesOf(records).map(({ op, data, meta }) => [op, data!.big, meta.unchanged]);
  assert.deepEqual(seen, [
    ['c', x, undefined],
    ['u', undefined, ['big']],
    ['d', undefined, undefined],
    ['c', undefined, ['big']],
    ['u', null, undefined],
    ['u', '__debezium_unavailable_value', undefined],
  ]);
  assert.deepEqual(
    records.map(({ headers }) => headers.unchanged),
    [undefined, 'big', undefined, undefined, 'big', undefined, undefined],
  );
  const full = changesOf(await rig.until('toast_plain.public.toasted_full', count(7)));
  assert.deepEqual(
    full.map(({ op, data }) => [op, data!.big]),
    [
      ['c', x],
      ['u', x],
      ['d', x],
      ['c', x],
      ['u', null],
      ['u', '__debezium_unavailable_value'],
    ],
  );
  const marked = await rig.until('toast_debezium.public.toasted', count(7));
  assert.equal(JSON.parse(marked[1]!.value!).after.big, '__debezium_unavailable_value');
  assert.equal(marked[1]!.headers.unchanged, 'big');
  assert.equal(JSON.parse(marked[6]!.value!).after.big, '__debezium_unavailable_value');
  assert.equal(marked[6]!.headers.unchanged, undefined, 'a string that looks like the mark is not marked');
  await Promise.all([plain.finish(), debezium.finish()]);
});

test('a change of the key is a delete, a tombstone and a create, which name each other', async () => {
  await sql.query('CREATE TABLE moved (id int PRIMARY KEY, v text)');
  const moved = rig.start('moved', { tables: ['public.moved'] });
  await moved.reached('streaming');
  await sql.query(`INSERT INTO moved VALUES (1, 'v'); UPDATE moved SET id = 2; DELETE FROM moved`);
  const records = await rig.until('moved.public.moved', count(6));
  assert.deepEqual(
    records.map(({ key, value, headers }) => [
      key,
      value === null ? null : JSON.parse(value).op,
      headers['__debezium.newkey'] ?? headers['__debezium.oldkey'],
    ]),
    [
      ['{"id":1}', 'c', undefined],
      ['{"id":1}', 'd', '{"id":2}'],
      ['{"id":1}', null, '{"id":2}'],
      ['{"id":2}', 'c', '{"id":1}'],
      ['{"id":2}', 'd', undefined],
      ['{"id":2}', null, undefined],
    ],
  );
  await moved.finish();
});

test('TRUNCATE of several tables is an event for each, in every partition, between what was before and after', async () => {
  await sql.query(
    'CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent)',
  );
  const truncated = rig.start('truncated', {
    tables: ['public.parent', 'public.child'],
    format: 'plain',
    partitions: 3,
  });
  await truncated.reached('streaming');
  await sql.query(
    'INSERT INTO parent SELECT generate_series(1, 50); INSERT INTO child SELECT i, i FROM generate_series(1, 50) i',
  );
  await sql.query('TRUNCATE parent CASCADE');
  await sql.query(
    'INSERT INTO parent SELECT generate_series(51, 100); INSERT INTO child SELECT i, i FROM generate_series(51, 100) i',
  );
  for (const topic of ['truncated.public.parent', 'truncated.public.child']) {
    const records = await rig.until(topic, count(103));
    for (const partition of [0, 1, 2]) {
      const ids = changesOf(records.filter(record => record.partition === partition)).map(({ op, data }) =>
        op === 't' ? 't' : (data!.id as number) <= 50 ? 'before' : 'after',
      );
      assert.deepEqual([...new Set(ids)], ['before', 't', 'after']);
      assert.equal(ids.filter(id => id === 't').length, 1);
    }
  }
  await truncated.finish();
});

test('partitioned tables, generated columns and names in any letters', async () => {
  await sql.query(`
    CREATE TABLE split (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE split_2 PARTITION OF split FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE SCHEMA "Über";
    CREATE TABLE "Über"."Żółw ""quoted""" ("ID" int PRIMARY KEY, "b c" text, twice int GENERATED ALWAYS AS ("ID" * 2) STORED)`);
  const odd = rig.start('odd', { tables: ['public.split*', 'Über.*'], format: 'plain' });
  await odd.reached('streaming');
  await sql.query(
    `INSERT INTO split VALUES (1, '2024-05-05'), (2, '2025-05-05'); UPDATE split SET at = '2025-06-06' WHERE id = 1`,
  );
  await sql.query(`INSERT INTO "Über"."Żółw ""quoted""" VALUES (1, 'x')`);
  const records = await rig.until('odd.public.split', count(5));
  assert.deepEqual(opsOf(records), [
    'c {"id":1,"at":"2024-05-05"}',
    'c {"id":2,"at":"2025-05-05"}',
    'd {"id":1,"at":"2024-05-05"}',
    'c {"id":1,"at":"2025-06-06"}',
  ]);
  const [named] = await rig.until('odd._ber.___w__quoted_', count(1));
  assert.deepEqual(changeOf(named!).data, { ID: 1, 'b c': 'x' });
  assert.equal(named!.key, '{"ID":1}');
  await odd.finish();
});

test('tables whose deletes cannot be told apart are refused at the start, with SQL that mends it', async () => {
  await sql.query(
    `CREATE TABLE blind (id int); CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING`,
  );
  const definition = { tables: ['public.blind', 'public.nothing'], format: 'plain' };
  const blind = rig.start('blind', definition);
  await assert.rejects(blind.reached('streaming'), /public\.blind, public\.nothing cannot be told apart/);
  await sql.query('INSERT INTO blind VALUES (1); DELETE FROM blind'); // nothing has been published that breaks it
  const mending = /run: (ALTER TABLE .*?); or/.exec(blind.status().hint!)![1]!;
  await sql.query(mending);
  const mended = rig.start('blind', definition);
  await mended.reached('streaming');
  await sql.query(
    'INSERT INTO blind VALUES (2); DELETE FROM blind; INSERT INTO nothing VALUES (3); DELETE FROM nothing',
  );
  assert.deepEqual(opsOf(await rig.until('blind.public.blind', count(2))), ['c {"id":2}', 'd {"id":2}']);
  await mended.finish();
  const inserts = rig.start('inserts', { tables: ['public.blind'], operations: ['create'], format: 'plain' });
  await inserts.reached('streaming');
  await inserts.finish();
});

test('a row that no batch holds goes to the dead letters, and the others go on', async () => {
  await sql.query('CREATE TABLE sized (id int PRIMARY KEY, v text)');
  const sized = rig.start('sized', {
    tables: ['public.sized'],
    format: 'plain',
    topicConfig: { 'max.message.bytes': '10000' },
  });
  await sized.reached('streaming');
  await sql.query(
    `INSERT INTO sized VALUES (1, 'a'), (2, repeat('x', 20000)), (3, 'c'); DELETE FROM sized WHERE id = 2`,
  );
  const records = await rig.until('sized.public.sized', count(4));
  assert.deepEqual(
    records.map(({ key, value }) => [key, value === null]),
    [
      ['{"id":1}', false],
      ['{"id":3}', false],
      ['{"id":2}', false],
      ['{"id":2}', true],
    ],
  );
  const [dead] = await rig.until('sized.dead-letter', count(1));
  assert.equal(dead!.key, '{"id":2}');
  assert.equal(dead!.headers.topic, 'sized.public.sized');
  assert.match(dead!.headers.reason!, /20\d\d\d bytes; max\.message\.bytes is 10000/);
  assert.equal(sized.status().deadLetters, 1);
  await sized.finish();
});

test('100,000 savepoints, half of them rolled back', { timeout: 300_000 }, async () => {
  await sql.query('CREATE TABLE saved (id int PRIMARY KEY, v text)');
  const saved = rig.start('saved', { tables: ['public.saved'], format: 'plain' });
  await saved.reached('streaming');
  await sql.query(`DO $$ BEGIN
    FOR i IN 1..100000 LOOP
      BEGIN
        INSERT INTO saved VALUES (i, 'a row that makes the transaction large enough to be streamed');
        IF i % 2 = 0 THEN RAISE EXCEPTION 'back'; END IF;
      EXCEPTION WHEN raise_exception THEN NULL;
      END;
    END LOOP;
  END $$`);
  const records = await rig.until('saved.public.saved', count(50_000));
  assert.equal(records.length, 50_000);
  assert.ok(changesOf(records).every(({ data }, i) => data!.id === i * 2 + 1));
  assert.equal(new Set(records.map(({ headers }) => headers.ordinal)).size, 50_000);
  await saved.finish();
});

test('short transactions that commit during a long one come first, and each whole', async () => {
  await sql.query('CREATE TABLE mixed (id int PRIMARY KEY, v text)');
  const mixed = rig.start('mixed', { tables: ['public.mixed'], format: 'plain' });
  await mixed.reached('streaming');
  const long = await rig.database.pool.connect();
  await long.query(`SET logical_decoding_work_mem = '64kB'; BEGIN`);
  for (let i = 0; i < 20; i++) {
    await long.query(
      `INSERT INTO mixed SELECT 1000 + $1::int * 100 + n, repeat('l', 100) FROM generate_series(0, 99) n`,
      [i],
    );
    await sql.query(`INSERT INTO mixed VALUES ($1, 'short'), ($1 + 500, 'short')`, [i]);
  }
  const early = await rig.until('mixed.public.mixed', count(40));
  assert.equal(early.length, 40);
  await long.query('COMMIT');
  long.release();
  const records = await rig.until('mixed.public.mixed', count(2040));
  const ids = changesOf(records).map(({ data }) => data!.id);
  assert.deepEqual(ids.slice(0, 40), Array.from({ length: 20 }, (_, i) => [i, i + 500]).flat());
  assert.deepEqual(
    ids.slice(40),
    Array.from({ length: 2000 }, (_, i) => 1000 + i),
  );
  await mixed.finish();
});

test('a walsender that is killed again and again loses and doubles nothing', { timeout: 300_000 }, async () => {
  await sql.query('CREATE TABLE cut (id int PRIMARY KEY, v int)');
  const cut = rig.start('cut', { tables: ['public.cut'], format: 'plain', partitions: 3 });
  await cut.reached('streaming');
  for (let i = 0; i < 200; i++) {
    await sql.query('INSERT INTO cut SELECT $1::int * 10 + n, $1 FROM generate_series(0, 9) n', [i]);
    if (i % 10 !== 9) continue;
    await sql.query(
      'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active',
      [`cut_${rig.suffix}`],
    );
    if (i % 50 === 49) await cut.reached('streaming');
  }
  const records = await rig.until('cut.public.cut', count(2000));
  assert.equal(records.length, 2000);
  assert.equal(new Set(changesOf(records).map(({ data }) => data!.id)).size, 2000);
  for (const partition of [0, 1, 2]) {
    const order = changesOf(records.filter(record => record.partition === partition)).map(
      ({ data }) => data!.id as number,
    );
    assert.deepEqual(
      order,
      order.toSorted((a, b) => a - b),
    );
  }
  assert.ok(cut.states.includes('retrying'));
  await cut.finish();
});

test('logical messages: others’ are events, one that was rolled back is none', async () => {
  const messages = rig.start('messages', { tables: ['public.none'], format: 'plain' });
  await messages.reached('streaming');
  await sql.query(`BEGIN; SELECT pg_logical_emit_message(true, 'gone', 'x'); ROLLBACK`);
  await sql.query(`SELECT pg_logical_emit_message(false, 'alone', 'y')`);
  await sql.query(`SELECT pg_logical_emit_message(true, 'kept', 'z')`);
  const records = await rig.until('messages.message', count(2));
  assert.deepEqual(
    records.map(({ key }) => key),
    ['{"prefix":"alone"}', '{"prefix":"kept"}'],
  );
  assert.equal(Buffer.from(String(changeOf(records[1]!).data!.content), 'base64').toString(), 'z');
  await messages.finish();
});
