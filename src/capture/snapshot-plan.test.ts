import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { describeTable } from './snapshot-description.ts';
import { cutTable, ofPages } from './snapshot-plan.ts';

let database: TestDatabase;
let client: pg.Client;

before(async () => {
  database = await createDatabase({ empty: true });
  const types = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;
  client = new pg.Client({ connectionString: database.url, types });
  await client.connect();
});

after(async () => {
  await client.end();
  await database.drop();
});

const plan = async (name: string, readers: number) => {
  const version = Number((await client.query('SHOW server_version_num')).rows[0].server_version_num);
  const described = await describeTable(client, version, 'none', { schema: 'public', name });
  return { described, pieces: await cutTable(client, described, readers) };
};

test('pages are shared out from the first, with nothing between, and to whatever end there will be', () => {
  assert.deepEqual(
    ofPages({ id: 7, filenode: 9, pages: 10 }, 3).map(({ after, until }) => [after, until]),
    [
      [null, ['(3,0)']],
      [['(3,0)'], ['(6,0)']],
      [['(6,0)'], null],
    ],
  );
  assert.deepEqual(ofPages({ id: 7, filenode: 9, pages: 0 }, 1), [
    { leafId: 7, filenode: 9, after: null, until: null },
  ]);
  assert.deepEqual(
    ofPages({ id: 7, filenode: 9, pages: 1 }, 4).map(({ until }) => until),
    [null],
  );
});

test('a sample of the key cuts a table into pieces of about one size, which meet', async () => {
  await client.query(`
    CREATE TABLE keyed (a text COLLATE "C", b int, pad text, PRIMARY KEY (b, a)) WITH (autovacuum_enabled = off);
    INSERT INTO keyed SELECT 'k' || i, i / 3, repeat('x', 300) FROM generate_series(1, 60000) i; ANALYZE keyed`);
  const { described, pieces } = await plan('keyed', 4);
  assert.deepEqual(described.keyColumns, ['b', 'a']);
  assert.equal(described.estimatedRows, 60_000);
  assert.ok(pieces.length >= 3, `${pieces.length} pieces`);
  assert.deepEqual([pieces[0]!.after, pieces.at(-1)!.until], [null, null]);
  for (const [i, { until }] of pieces.slice(0, -1).entries()) {
    assert.deepEqual(pieces[i + 1]!.after, until);
    const { rows } = await client.query(
      'SELECT count(*) AS count FROM keyed WHERE (b, a) <= ($1::text::int, $2)',
      until as string[],
    );
    const share = Number(rows[0].count) / 60_000;
    assert.ok(Math.abs(share - (i + 1) / pieces.length) < 0.25, `piece ${i} ends at ${share}`);
  }
  assert.equal((await plan('keyed', 1)).pieces.length, 1);
});

test('an index that is the replica identity is a key to read by; without any it is ctid, for each partition', async () => {
  await client.query(`
    CREATE TABLE indexed (a int NOT NULL, b int NOT NULL, c int); CREATE UNIQUE INDEX i ON indexed (b, a) INCLUDE (c);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX i;
    CREATE TABLE parts (n int) PARTITION BY LIST (n);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2)`);
  assert.deepEqual((await plan('indexed', 2)).described.keyColumns, ['b', 'a']);
  const { described, pieces } = await plan('parts', 2);
  assert.deepEqual(described.keyColumns, []);
  const { rows } = await client.query(`SELECT 'parts_1'::regclass::oid AS one, 'parts_2'::regclass::oid AS two`);
  assert.deepEqual(
    pieces.map(({ leafId }) => leafId),
    [Number(rows[0].one), Number(rows[0].two)],
  );
});
