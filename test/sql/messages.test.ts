// kafka.messages, kafka.fetch, kafka.record_batches and the views of 0005 over a log of several topics and segments.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { tableOf } from '../../src/storage/segments.ts';
import { createDatabase, type TestDatabase } from '../database.ts';
import { readTopic } from '../read-topic.ts';
import { plainBatch } from './foreign-encoder.ts';
import { append, createTopic, type LogRow, openSegment, seal } from './log-rig.ts';

let database: TestDatabase;
let orders: number;
let orderSegments: number[];

const perRow = 20;
/** A row of two batches. */
async function row(partition: number, baseOffset: bigint): Promise<LogRow> {
  const half = perRow / 2;
  return {
    partition,
    baseOffset,
    lastOffset: baseOffset + BigInt(perRow - 1),
    globalOffset: 1_000_000n * BigInt(partition) + baseOffset,
    records: Buffer.concat([await plainBatch(baseOffset, half), await plainBatch(baseOffset + BigInt(half), half)]),
  };
}

// orders: partition 0 in a sealed and two open segments, partition 1 in the sealed one only, partition 2 empty.
before(async () => {
  database = await createDatabase();
  const { pool } = database;
  orders = await createTopic(pool, 'orders', 3);
  const sealed = await openSegment(pool, orders);
  await append(pool, sealed, [await row(0, 0n), await row(1, 0n), await row(0, 20n)]);
  await seal(pool, sealed);
  const rolled = await openSegment(pool, orders);
  await append(pool, rolled, [await row(0, 40n)]);
  const open = await openSegment(pool, orders);
  await append(pool, open, [await row(0, 60n), await row(0, 80n)]);
  orderSegments = [sealed, rolled, open];
  const other = await createTopic(pool, 'other', 1);
  await append(pool, await openSegment(pool, other), [await row(0, 0n)]);
  await createTopic(pool, 'empty', 2);
  await pool.query(`INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset)
    SELECT 'billing', topic_id, 0, 15 FROM kafka.topics WHERE name <> 'empty'`);
});
after(() => database.drop());

async function query<T extends object>(sql: string, values: unknown[] = []): Promise<T[]> {
  const { rows } = await database.pool.query<T>(sql, values);
  return rows;
}

const offsets = (from: number, to: number): bigint[] => Array.from({ length: to - from }, (_, i) => BigInt(from + i));

test('kafka.messages shows each record once, in the order of its partition', async () => {
  const rows = await query<{ partition: number; partition_offset: bigint; global_offset: bigint; key: Buffer }>(
    `SELECT * FROM kafka.messages WHERE topic = 'orders'`,
  );
  for (const [partition, count] of [
    [0, 100],
    [1, 20],
    [2, 0],
  ] as const) {
    const found = rows.filter(message => message.partition === partition);
    assert.deepEqual(
      found.map(message => message.partition_offset),
      offsets(0, count),
    );
    for (const message of found) {
      assert.equal(message.global_offset, 1_000_000n * BigInt(partition) + message.partition_offset);
      assert.equal(`${message.key}`, `key ${message.partition_offset}`);
    }
  }
  assert.equal(rows.length, 120);
  const all = await query<{ topic: string; count: bigint }>(
    'SELECT topic, count(*) FROM kafka.messages GROUP BY topic ORDER BY topic',
  );
  assert.deepEqual(all, [
    { topic: 'orders', count: 120n },
    { topic: 'other', count: 20n },
  ]);
});

test('what tests decode by themselves is what kafka.messages shows', async () => {
  for (const topic of ['orders', 'other', 'empty']) {
    assert.deepEqual(
      (await readTopic(database.pool, topic)).map(({ partition, offset, key, value }) => [
        partition,
        offset,
        key,
        value,
      ]),
      (
        await query<{ partition: number; partition_offset: bigint; key: Buffer; value: Buffer }>(
          'SELECT * FROM kafka.messages WHERE topic = $1 ORDER BY partition, partition_offset',
          [topic],
        )
      ).map(({ partition, partition_offset, key, value }) => [partition, partition_offset, key, value]),
    );
  }
});

test('kafka.messages has the columns of its contract', async () => {
  const [message] = await query<object>(`SELECT * FROM kafka.messages WHERE topic = 'other' LIMIT 1`);
  assert.deepEqual(message, {
    topic: 'other',
    partition: 0,
    partition_offset: 0n,
    global_offset: 0n,
    timestamp: new Date(1_700_000_000_000),
    key: Buffer.from('key 0'),
    value: Buffer.alloc(20, '0'),
    headers: '{}',
    codec: 'none',
  });
});

test('a query over one topic locks no other topic, and over one partition reads no other', async () => {
  const client = await database.pool.connect();
  try {
    await client.query('BEGIN');
    await client.query(`SELECT count(*) FROM kafka.messages WHERE topic = 'orders' AND partition = 1`);
    const { rows } = await client.query<{ name: string }>(
      `SELECT relation::regclass::text AS name FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text LIKE 'kafka.segment\\_%'`,
    );
    const tables = rows.map(({ name }) => name).filter(name => /^kafka\.segment_\d+$/.test(name));
    assert.deepEqual(tables.sort(), orderSegments.map(tableOf).sort());
    await client.query('COMMIT');
    const { rows: plan } = await client.query<{ 'QUERY PLAN': string }>(
      `EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off)
       SELECT count(*) FROM kafka.messages WHERE topic = 'orders' AND partition = 1`,
    );
    const text = plan.map(line => line['QUERY PLAN']).join('\n');
    // One row of partition 1 holds all of it; decoding anything else would show as another loop.
    assert.match(text, /decode_batches m \(actual rows=20(\.00)? loops=1\)/, text);
    assert.doesNotMatch(text, /Memoize/);
  } finally {
    client.release();
  }
});

test('what lies before the log start is gone from every view', async () => {
  const client = await database.pool.connect();
  try {
    await client.query('BEGIN');
    await client.query(`UPDATE kafka.partitions SET log_start_offset = 33 WHERE topic_id = $1 AND partition_id = 0`, [
      orders,
    ]);
    const { rows: messages } = await client.query(
      `SELECT partition_offset AS o FROM kafka.messages WHERE topic = 'orders' AND partition = 0`,
    );
    assert.deepEqual(
      messages.map(({ o }) => o),
      offsets(33, 100),
    );
    const { rows: fetched } = await client.query(`SELECT partition_offset AS o FROM kafka.fetch('orders', 0, 5, 10)`);
    assert.deepEqual(
      fetched.map(({ o }) => o),
      offsets(33, 43),
    );
    const { rows: batches } = await client.query(
      `SELECT base_offset AS o FROM kafka.record_batches WHERE topic = 'orders' AND partition = 0`,
    );
    assert.deepEqual(
      batches.map(({ o }) => o),
      [20n, 40n, 60n, 80n],
    );
    await client.query('ROLLBACK');
  } finally {
    client.release();
  }
});

test('kafka.fetch takes a range over rows and segments', async () => {
  const fetched = async (offset: number, limit?: number) =>
    (
      await query<{ o: bigint }>(
        limit === undefined
          ? `SELECT partition_offset AS o FROM kafka.fetch('orders', 0, $1)`
          : `SELECT partition_offset AS o FROM kafka.fetch('orders', 0, $1, $2)`,
        limit === undefined ? [offset] : [offset, limit],
      )
    ).map(({ o }) => o);
  assert.deepEqual(await fetched(0), offsets(0, 100));
  assert.deepEqual(await fetched(-7, 3), offsets(0, 3));
  assert.deepEqual(await fetched(33, 40), offsets(33, 73));
  assert.deepEqual(await fetched(59, 2), offsets(59, 61));
  assert.deepEqual(await fetched(99, 5), offsets(99, 100));
  assert.deepEqual(await fetched(100, 5), []);
  assert.deepEqual(await fetched(10, 0), []);
  const [first] = await query<{ global_offset: bigint }>(`SELECT global_offset FROM kafka.fetch('orders', 1, 7, 1)`);
  assert.equal(first!.global_offset, 1_000_007n);
  await assert.rejects(query(`SELECT * FROM kafka.fetch('orders', 3, 0)`), /no partition 3 of a topic "orders"/);
  await assert.rejects(query(`SELECT * FROM kafka.fetch('nowhere', 0, 0)`), { code: '42704' });
});

test('a large log is read in pieces, whole', async () => {
  const { pool } = database;
  const topic = await createTopic(pool, 'large', 1);
  const segment = await openSegment(pool, topic);
  const batch = await plainBatch(0n, 1);
  // 10,000 rows of one record, but for a hole of 30,000 offsets such as compaction leaves.
  await pool.query(
    `INSERT INTO ${tableOf(segment)} (partition_id, base_offset, last_offset, global_offset, max_timestamp, records)
     SELECT 0, o, o, o, 0, int8send(o) || substr($1::bytea, 9)
     FROM (SELECT i + 30000 * (i / 5000) AS o FROM generate_series(0, 9999) i) numbered`,
    [batch],
  );
  const [sums] = await query<{ count: bigint; distinct: bigint; max: bigint }>(
    `SELECT count(*), count(DISTINCT partition_offset) AS distinct, max(partition_offset) FROM kafka.messages WHERE topic = 'large'`,
  );
  assert.deepEqual(sums, { count: 10_000n, distinct: 10_000n, max: 39_999n });
  const [fetched] = await query<{ count: bigint; min: bigint; max: bigint }>(
    `SELECT count(*), min(partition_offset), max(partition_offset) FROM kafka.fetch('large', 0, 4000, 3000)`,
  );
  assert.deepEqual(fetched, { count: 3000n, min: 4000n, max: 36_999n });
});

test('kafka.record_batches shows rows as stored', async () => {
  const rows = await query<{
    partition: number;
    base_offset: bigint;
    last_offset: bigint;
    bytes: number;
    codec: string;
  }>(
    `SELECT partition, base_offset, last_offset, bytes, codec FROM kafka.record_batches WHERE topic = 'orders' AND partition = 1`,
  );
  const { records } = await row(1, 0n);
  assert.deepEqual(rows, [{ partition: 1, base_offset: 0n, last_offset: 19n, bytes: records.length, codec: 'none' }]);
});

test('the ends of the log, one by one and in bulk, with the floors', async () => {
  const { pool } = database;
  await pool.query(`UPDATE kafka.partitions p SET next_offset_floor = 7, log_start_offset = 7
    FROM kafka.topics t WHERE t.topic_id = p.topic_id AND name = 'empty' AND partition_id = 1`);
  const ends = await query<object>(
    `SELECT topic, partition, log_start_offset, high_watermark, records FROM kafka.partition_offsets
     WHERE topic IN ('orders', 'empty') ORDER BY topic, partition`,
  );
  const end = (topic: string, partition: number, start: bigint, high: bigint) => ({
    topic,
    partition,
    log_start_offset: start,
    high_watermark: high,
    records: high - start,
  });
  assert.deepEqual(ends, [
    end('empty', 0, 0n, 0n),
    end('empty', 1, 7n, 7n),
    end('orders', 0, 0n, 100n),
    end('orders', 1, 0n, 20n),
    end('orders', 2, 0n, 0n),
  ]);
  const bulk = await query<object>(
    `SELECT t.name AS topic, e.partition_id AS partition, e.next_offset, e.next_global_offset
     FROM kafka.log_ends((SELECT array_agg(topic_id) FROM kafka.topics WHERE name IN ('orders', 'empty'))) e
     JOIN kafka.topics t USING (topic_id) ORDER BY 1, 2`,
  );
  assert.deepEqual(bulk, [
    { topic: 'empty', partition: 0, next_offset: 0n, next_global_offset: 0n },
    { topic: 'empty', partition: 1, next_offset: 7n, next_global_offset: 0n },
    { topic: 'orders', partition: 0, next_offset: 100n, next_global_offset: 100n },
    { topic: 'orders', partition: 1, next_offset: 20n, next_global_offset: 1_000_020n },
    { topic: 'orders', partition: 2, next_offset: 0n, next_global_offset: 0n },
  ]);
});

test('bytes of a partition and of a topic', async () => {
  const [stored] = await query<{ bytes: bigint }>(
    `SELECT sum(bytes)::bigint AS bytes FROM kafka.record_batches WHERE topic = 'orders' AND partition = 0`,
  );
  const [told] = await query<{ bytes: bigint }>(
    `SELECT bytes FROM kafka.partition_offsets WHERE topic = 'orders' AND partition = 0`,
  );
  assert.equal(told!.bytes, stored!.bytes);
  const [size] = await query<{ partitions: number; segments: bigint; bytes: bigint }>(
    `SELECT partitions, segments, bytes FROM kafka.topic_sizes WHERE topic = 'orders'`,
  );
  assert.equal(size!.partitions, 3);
  assert.equal(size!.segments, 3n);
  assert.ok(size!.bytes >= stored!.bytes);
  assert.deepEqual(await query(`SELECT segments, bytes FROM kafka.topic_sizes WHERE topic = 'empty'`), [
    { segments: 0n, bytes: 0n },
  ]);
});

test('kafka.consumer_lag is the end less what was committed', async () => {
  const lags = await query<object>(
    `SELECT topic, partition, committed_offset, end_offset, lag FROM kafka.consumer_lag WHERE "group" = 'billing' ORDER BY topic`,
  );
  assert.deepEqual(lags, [
    { topic: 'orders', partition: 0, committed_offset: 15n, end_offset: 100n, lag: 85n },
    { topic: 'other', partition: 0, committed_offset: 15n, end_offset: 20n, lag: 5n },
  ]);
});

test('a segment dropped while a query runs is read as empty', async () => {
  const { pool } = database;
  const topic = await createTopic(pool, 'dropped', 1);
  const [first, second] = [await openSegment(pool, topic), await openSegment(pool, topic)];
  await append(pool, first, [await row(0, 0n)]);
  await append(pool, second, [await row(0, 20n)]);
  // What a query that looked into kafka.segments before the drop finds.
  await pool.query(`DROP TABLE ${tableOf(first)}`);
  assert.deepEqual(
    (await query<{ o: bigint }>(`SELECT partition_offset AS o FROM kafka.messages WHERE topic = 'dropped'`)).map(
      ({ o }) => o,
    ),
    offsets(20, 40),
  );
  assert.equal((await query(`SELECT * FROM kafka.fetch('dropped', 0, 0, 50)`)).length, 20);
  assert.deepEqual(await query(`SELECT high_watermark AS end FROM kafka.partition_offsets WHERE topic = 'dropped'`), [
    { end: 40n },
  ]);
  await pool.query(`UPDATE kafka.segments SET state = 'dropping' WHERE segment_id = $1`, [second]);
  assert.deepEqual(await query(`SELECT * FROM kafka.messages WHERE topic = 'dropped'`), []);
});

test('a role with SELECT on the schema reads the log and changes nothing', async () => {
  const { pool } = database;
  const role = `reader_${Math.random().toString(36).slice(2)}`;
  await pool.query(`CREATE ROLE ${role}`);
  const client = await pool.connect();
  try {
    await client.query(`GRANT USAGE ON SCHEMA kafka TO ${role}`);
    await client.query(`GRANT SELECT ON ALL TABLES IN SCHEMA kafka TO ${role}`);
    await client.query(`ALTER DEFAULT PRIVILEGES IN SCHEMA kafka GRANT SELECT ON TABLES TO ${role}`);
    const later = await createTopic(pool, 'later', 1);
    await append(pool, await openSegment(pool, later), [await row(0, 0n)]);
    await client.query(`SET ROLE ${role}`);
    for (const topic of ['orders', 'later']) {
      const { rows } = await client.query(`SELECT count(*) FROM kafka.messages WHERE topic = $1`, [topic]);
      assert.equal(rows[0].count, topic === 'orders' ? 120n : 20n);
    }
    await assert.rejects(client.query(`UPDATE kafka.topics SET name = 'mine'`), { code: '42501' });
  } finally {
    await client.query('RESET ROLE');
    await client.query(`DROP OWNED BY ${role}`);
    await client.query(`DROP ROLE ${role}`);
    client.release();
  }
});
