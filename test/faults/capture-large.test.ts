// What is large: a value of 100 MB, a COPY of 100,000 rows, and positions that only ever go forward meanwhile.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type pg from 'pg';
import { type CaptureRig, openRig } from '../capture-rig.ts';

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

test('a value of 100 MB comes whole where max.message.bytes lets it, and else goes to the dead letters', {
  timeout: 300_000,
}, async () => {
  const bytes = 100_000_000;
  await sql.query('CREATE TABLE blobs (id int PRIMARY KEY, v bytea); ALTER TABLE blobs ALTER v SET STORAGE EXTERNAL');
  const whole = rig.start('whole', {
    tables: ['public.blobs'],
    format: 'plain',
    topicConfig: { 'max.message.bytes': '200000000' },
  });
  const refused = rig.start('refused', { tables: ['public.blobs'], format: 'plain' });
  await Promise.all([whole.reached('streaming'), refused.reached('streaming')]);
  await sql.query(`INSERT INTO blobs VALUES (1, 'a')`);
  // Not all bytes alike, and their number no multiple of three.
  const value = `convert_to(repeat('0123456789 äöü ', ${bytes / 20}), 'UTF8')`;
  await sql.query(`INSERT INTO blobs SELECT 2, substr(v || v, 1, ${bytes}) FROM (SELECT ${value}) AS f (v)`);
  await sql.query(`INSERT INTO blobs VALUES (3, 'c')`);

  await rig.until('refused.dead-letter', records => records.length === 1);
  const others = await rig.until('refused.public.blobs', records => records.length === 2);
  assert.deepEqual(
    others.map(({ key }) => key),
    ['{"id":1}', '{"id":3}'],
  );
  const [dead] = await rig.records('refused.dead-letter');
  assert.equal(dead!.key, '{"id":2}');
  assert.match(dead!.headers.reason!, /the record has 1333\d{5} bytes; max\.message\.bytes is/);
  assert.equal(refused.status().deadLetters, 1);

  for (const deadline = Date.now() + 240_000; (await rig.size('whole.public.blobs')) < 3; ) {
    assert.ok(Date.now() < deadline, JSON.stringify(whole.status().reason));
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  const { rows: segments } = await sql.query<{ segment: string }>(
    `SELECT 'kafka.segment_' || segment_id AS segment FROM kafka.record_batches
     WHERE topic = 'whole.public.blobs' AND bytes > ${bytes}`,
  );
  assert.equal(segments.length, 1);
  const encoded = Math.ceil(bytes / 3) * 4;
  const { rows } = await sql.query<{ same: boolean }>(
    `SELECT sha256(decode(convert_from(substr(records, position('"v":"'::bytea IN records) + 5, ${encoded}), 'UTF8'), 'base64'))
            = (SELECT sha256(v) FROM blobs WHERE id = 2) AS same
     FROM ${segments[0]!.segment} WHERE octet_length(records) > ${bytes}`,
  );
  assert.deepEqual(rows, [{ same: true }]);
  await sql.query('DROP TABLE blobs');
  await Promise.all([whole.finish(), refused.finish()]);
});

test('a COPY of 100,000 rows beside other commits: each row once, with an id of its own; positions never go back', {
  timeout: 300_000,
}, async () => {
  await sql.query('CREATE TABLE copied (id int PRIMARY KEY); CREATE TABLE beside (id int PRIMARY KEY)');
  const copied = rig.start('copied', { tables: ['public.copied', 'public.beside'], format: 'plain', partitions: 2 });
  await copied.reached('streaming');
  let watching = true;
  const seen: bigint[] = [];
  const watch = (async () => {
    const observer = await rig.database.pool.connect();
    while (watching) {
      const { rows } = await observer.query<{ slot: bigint; capture: bigint }>(
        `SELECT (confirmed_flush_lsn - '0/0')::int8 AS slot,
                (SELECT confirmed_lsn - '0/0' FROM kafka.captures WHERE name = 'copied')::int8 AS capture
         FROM pg_replication_slots WHERE slot_name = $1`,
        [`copied_${rig.suffix}`],
      );
      const { slot, capture } = rows[0]!;
      seen.push(slot);
      assert.ok(capture >= slot, 'the slot was told before it was noted');
    }
    observer.release();
  })();
  const other = await rig.database.pool.connect();
  await Promise.all([
    sql.query(`COPY copied FROM PROGRAM 'seq 1 100000'`),
    (async () => {
      for (let i = 0; i < 200; i++) await other.query('INSERT INTO beside VALUES ($1)', [i]);
    })(),
  ]);
  other.release();
  const records = await rig.until('copied.public.copied', found => found.length >= 100_000);
  await rig.until('copied.public.beside', found => found.length === 200);
  watching = false;
  await watch;
  assert.equal(records.length, 100_000);
  assert.equal(new Set(records.map(({ key }) => key)).size, 100_000);
  assert.equal(new Set(records.map(({ headers }) => `${headers.commit_lsn}.${headers.ordinal}`)).size, 100_000);
  assert.ok(
    seen.every((lsn, i) => i === 0 || lsn >= seen[i - 1]!),
    'the slot went back',
  );
  await copied.finish();
});
