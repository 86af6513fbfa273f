// What a publication says is what is captured: partitions under their root’s name or their own, lists of columns, filters
// of rows, generated columns; and which columns tell a row that is deleted.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type pg from 'pg';
import { type CapturedRecord, type CaptureRig, openRig } from '../capture-rig.ts';

let rig: CaptureRig;
let sql: pg.PoolClient;
let version = 0;

before(async () => {
  rig = await openRig();
  sql = await rig.database.pool.connect();
  version = Number((await sql.query('SHOW server_version_num')).rows[0].server_version_num);
});

after(async () => {
  sql?.release();
  await rig?.remove();
});

interface Change {
  readonly op: string;
  readonly data: Record<string, unknown> | null;
}

const opsOf = (records: readonly CapturedRecord[]): string[] =>
  records
    .filter(({ value }) => value !== null)
    .map(({ value }) => JSON.parse(value!) as Change)
    .map(({ op, data }) => `${op} ${JSON.stringify(data)}`);
const count = (n: number) => (records: readonly CapturedRecord[]) => records.length >= n;
const publicationOf = (name: string): string => `${name}_${rig.suffix}`;

test('partitions go by their own names where the publication says so, old rows and new', async () => {
  await sql.query(`
    CREATE TABLE sales (id int, year int, PRIMARY KEY (id, year)) PARTITION BY LIST (year);
    CREATE TABLE sales_24 PARTITION OF sales FOR VALUES IN (2024);
    CREATE TABLE sales_25 PARTITION OF sales FOR VALUES IN (2025);
    CREATE TABLE secret_26 PARTITION OF sales FOR VALUES IN (2026);
    INSERT INTO sales VALUES (1, 2024), (2, 2025), (3, 2026);
    CREATE PUBLICATION ${publicationOf('leaves')} FOR TABLE sales WITH (publish_via_partition_root = false)`);
  const definition = {
    tables: ['public.sales'],
    exclude: ['public.secret_26'],
    format: 'plain',
    snapshot: 'initial',
  };
  const leaves = rig.start('leaves', definition);
  await leaves.reached('streaming');
  await rig.until('leaves.public.sales_25', count(1));
  await sql.query('INSERT INTO sales VALUES (4, 2024), (5, 2026)');
  await sql.query('UPDATE sales SET year = 2025 WHERE id = 4');
  await sql.query('CREATE TABLE sales_27 PARTITION OF sales FOR VALUES IN (2027); INSERT INTO sales VALUES (6, 2027)');
  assert.deepEqual(opsOf(await rig.until('leaves.public.sales_27', count(1))), ['c {"id":6,"year":2027}']);
  assert.deepEqual(opsOf(await rig.records('leaves.public.sales_24')), [
    'r {"id":1,"year":2024}',
    'c {"id":4,"year":2024}',
    'd {"id":4,"year":2024}',
  ]);
  assert.deepEqual(opsOf(await rig.records('leaves.public.sales_25')), [
    'r {"id":2,"year":2025}',
    'c {"id":4,"year":2025}',
  ]);
  assert.deepEqual(await rig.records('leaves.public.secret_26'), []);
  assert.deepEqual(await rig.records('leaves.public.sales'), []);
  await leaves.stop();
  // A second start changes nothing of the publication.
  const again = rig.start('leaves', definition);
  await again.reached('streaming');
  const { rows } = await sql.query(
    `SELECT pubviaroot, (SELECT array_agg(prrelid::regclass::text) FROM pg_publication_rel WHERE prpubid = p.oid) AS members
     FROM pg_publication p WHERE pubname = $1`,
    [publicationOf('leaves')],
  );
  assert.deepEqual(rows[0], { pubviaroot: false, members: ['sales'] });
  await again.finish();

  const root = rig.start('root', { ...definition, exclude: [] });
  await root.reached('streaming');
  await rig.until('root.public.sales', count(6));
  await sql.query('INSERT INTO sales VALUES (7, 2024); DELETE FROM sales WHERE id = 6');
  const records = opsOf(await rig.until('root.public.sales', count(9)));
  assert.deepEqual(records.slice(0, 6).toSorted(), [
    'r {"id":1,"year":2024}',
    'r {"id":2,"year":2025}',
    'r {"id":3,"year":2026}',
    'r {"id":4,"year":2025}',
    'r {"id":5,"year":2026}',
    'r {"id":6,"year":2027}',
  ]);
  assert.deepEqual(records.slice(6), ['c {"id":7,"year":2024}', 'd {"id":6,"year":2027}']);
  await root.finish();
});

test('columns that are not listed and rows that are filtered out are not there', async t => {
  if (version < 150_000) return t.skip('publications have neither before PostgreSQL 15');
  await sql.query(`
    CREATE TABLE staff (id int PRIMARY KEY, name text, salary int, active boolean NOT NULL);
    ALTER TABLE staff REPLICA IDENTITY FULL;
    CREATE TABLE listed (id int PRIMARY KEY, name text, salary int);
    INSERT INTO staff VALUES (1, 'old', 10, true), (2, 'gone', 20, false);
    INSERT INTO listed VALUES (1, 'old', 10);
    CREATE PUBLICATION ${publicationOf('chosen')} FOR TABLE staff WHERE (active), TABLE listed (id, name)`);
  const chosen = rig.start('chosen', {
    tables: ['public.staff', 'public.listed'],
    format: 'plain',
    snapshot: 'initial',
  });
  await chosen.reached('streaming');
  await rig.until('chosen.public.staff', count(1));
  await rig.until('chosen.public.listed', count(1));
  await sql.query(`INSERT INTO staff VALUES (3, 'a', 1, true), (4, 'b', 2, false)`);
  // Into the filter, out of it, and outside: a row that comes, one that goes, and nothing.
  await sql.query(`UPDATE staff SET active = true WHERE id = 4`);
  await sql.query(`UPDATE staff SET active = false WHERE id = 3`);
  await sql.query(`UPDATE staff SET salary = 3 WHERE id = 3`);
  await sql.query(
    `INSERT INTO listed VALUES (2, 'b', 20); UPDATE listed SET salary = 21; DELETE FROM listed WHERE id = 2`,
  );
  const staff = await rig.until('chosen.public.staff', count(5));
  assert.deepEqual(opsOf(staff), [
    'r {"id":1,"name":"old","salary":10,"active":true}',
    'c {"id":3,"name":"a","salary":1,"active":true}',
    'c {"id":4,"name":"b","salary":2,"active":true}',
    'd {"id":3,"name":"a","salary":1,"active":true}',
  ]);
  const listed = await rig.until('chosen.public.listed', count(6));
  assert.deepEqual(opsOf(listed), [
    'r {"id":1,"name":"old"}',
    'c {"id":2,"name":"b"}',
    'u {"id":1,"name":"old"}',
    'u {"id":2,"name":"b"}',
    'd {"id":2}',
  ]);
  await chosen.finish();
});

test('generated columns are there where the publication publishes them, in old rows as in new', async () => {
  await sql.query(`
    CREATE TABLE doubled (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
    INSERT INTO doubled VALUES (1);`);
  const names = ['without', ...(version >= 180_000 ? ['stored'] : [])];
  if (version >= 180_000) {
    await sql.query(
      `CREATE PUBLICATION ${publicationOf('stored')} FOR TABLE doubled WITH (publish_generated_columns = stored)`,
    );
  }
  for (const name of names) {
    const running = rig.start(name, { tables: ['public.doubled'], format: 'plain', snapshot: 'initial' });
    await running.reached('streaming');
    await rig.until(`${name}.public.doubled`, count(1));
    await sql.query('INSERT INTO doubled VALUES (2)');
    const more = name === 'stored' ? (id: number) => `,"twice":${id * 2}` : () => '';
    assert.deepEqual(opsOf(await rig.until(`${name}.public.doubled`, count(2))), [
      `r {"id":1${more(1)}}`,
      `c {"id":2${more(2)}}`,
    ]);
    await running.finish();
    await sql.query('DELETE FROM doubled WHERE id = 2');
  }
});

test('a whole row with a generated column as its identity is not published where UPDATE would then fail', async t => {
  if (version < 180_000) return t.skip('PostgreSQL 18 and later refuse it');
  await sql.query(`
    CREATE TABLE derived (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
    ALTER TABLE derived REPLICA IDENTITY FULL; INSERT INTO derived VALUES (1);`);
  const running = rig.start('derived', { tables: ['public.derived'], format: 'plain' });
  const { hint } = await running.reached('failed');
  assert.match(hint!, /REPLICA IDENTITY DEFAULT/);
  await sql.query('UPDATE derived SET id = 2');
  await sql.query('DROP TABLE derived');
});

test('a delete has what the replica identity tells: the key, the whole row, the columns of an index', async () => {
  await sql.query(`
    CREATE TABLE by_key (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text);
    CREATE TABLE by_row (LIKE by_key INCLUDING ALL); ALTER TABLE by_row REPLICA IDENTITY FULL;
    CREATE TABLE by_index (LIKE by_key INCLUDING ALL); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
    CREATE TABLE only_index (id int, code text NOT NULL UNIQUE, v text);
    ALTER TABLE only_index REPLICA IDENTITY USING INDEX only_index_code_key;
    INSERT INTO by_index VALUES (9, 'nine', 'v');`);
  const identity = rig.start('identity', {
    tables: ['public.*_key', 'public.by_row', 'public.*_index'],
    format: 'plain',
    snapshot: 'initial',
  });
  await identity.reached('streaming');
  await rig.until('identity.public.by_index', count(1));
  const seen = new Map<string, (readonly [string | null, string])[]>();
  for (const table of ['by_key', 'by_row', 'by_index', 'only_index']) {
    await sql.query(`INSERT INTO ${table} VALUES (1, 'one', 'v'); UPDATE ${table} SET v = 'w' WHERE id = 1;
      UPDATE ${table} SET code = 'eins' WHERE id = 1; DELETE FROM ${table} WHERE id = 1`);
    const old = table === 'by_index' ? 1 : 0;
    // A change of what is the key is two records and a tombstone; a delete has a tombstone.
    const rekeyed = table.endsWith('index') ? 2 : 0;
    const records = (await rig.until(`identity.public.${table}`, count(old + rekeyed + 5))).slice(old);
    seen.set(
      table,
      records.filter(({ value }) => value !== null).map(record => [record.key, opsOf([record])[0]!] as const),
    );
  }
  const key = '{"id":1}';
  assert.deepEqual(seen.get('by_key'), [
    [key, 'c {"id":1,"code":"one","v":"v"}'],
    [key, 'u {"id":1,"code":"one","v":"w"}'],
    [key, 'u {"id":1,"code":"eins","v":"w"}'],
    [key, 'd {"id":1}'],
  ]);
  assert.deepEqual(seen.get('by_row')!.at(-1), [key, 'd {"id":1,"code":"eins","v":"w"}']);
  for (const table of ['by_index', 'only_index']) {
    assert.deepEqual(seen.get(table), [
      ['{"code":"one"}', 'c {"id":1,"code":"one","v":"v"}'],
      ['{"code":"one"}', 'u {"id":1,"code":"one","v":"w"}'],
      ['{"code":"one"}', 'd {"code":"one"}'],
      ['{"code":"eins"}', 'c {"id":1,"code":"eins","v":"w"}'],
      ['{"code":"eins"}', 'd {"code":"eins"}'],
    ]);
  }
  const [old] = await rig.records('identity.public.by_index');
  assert.equal(old!.key, '{"code":"nine"}', 'rows that were read have the same key');
  await identity.finish();
});

test('who may not publish the tables is told the SQL, and goes on once their owner has run it', async () => {
  const role = `reader_${rig.suffix}`;
  await sql.query(`CREATE TABLE theirs (id int PRIMARY KEY); CREATE TABLE theirs_too (id int PRIMARY KEY)`);
  await sql.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'reader'`);
  const source = new URL(rig.database.url);
  source.username = role;
  source.password = 'reader';
  const { rows } = await sql.query<{ address: string | null }>('SELECT inet_server_addr()::text AS address');
  assert.ok(rows[0]!.address, 'over TCP');
  try {
    const definition = { source: source.href, tables: ['public.theirs'], format: 'plain' };
    const refused = rig.start('theirs', definition);
    const { reason, hint } = await refused.reached('failed');
    assert.match(reason!, /the role may not publish the tables/);
    await sql.query(/^run as their owner: (.*)$/.exec(hint!)![1]!);
    const first = rig.start('theirs', definition);
    await first.reached('streaming');
    await sql.query('INSERT INTO theirs VALUES (1)');
    await rig.until('theirs.public.theirs', count(1));
    await first.stop();
    // One that has begun goes on without the other table.
    const second = rig.start('theirs', { ...definition, tables: ['public.theirs', 'public.theirs_too'] });
    await second.reached('streaming');
    await sql.query('INSERT INTO theirs VALUES (2)');
    await rig.until('theirs.public.theirs', count(2));
    const noticed = async (captured: boolean) => {
      for (const deadline = Date.now() + 240_000; ; await new Promise(resolve => setTimeout(resolve, 20))) {
        const [notice, ...others] = second.status().notices;
        if (notice?.captured === captured) return { ...notice, others };
        assert.ok(Date.now() < deadline, JSON.stringify(second.status().notices));
      }
    };
    const left = await noticed(false);
    assert.deepEqual([left.table, left.others], ['public.theirs_too', []]);
    await sql.query(/^run as the owner of both: (.*)$/.exec(left.hint)![1]!);
    // Whether it had rows cannot be known without SELECT.
    assert.match((await noticed(true)).reason, /rows that it had/);
    await sql.query('INSERT INTO theirs_too VALUES (3)');
    await rig.until('theirs.public.theirs_too', count(1));
    await second.finish();
  } finally {
    await sql.query(`DROP ROLE ${role}`);
  }
});
