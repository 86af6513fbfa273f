import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeLogDirs } from '../../protocol/messages/35-describe-log-dirs.ts';
import type { Log } from '../../storage/log.ts';
import { Topics } from '../../storage/topics.ts';
import { describeLogDirs } from './35-describe-log-dirs.ts';

let database: TestDatabase;
let topics: Topics;
before(async () => {
  database = await createDatabase();
  topics = await Topics.load(database.pool);
  await topics.create({ name: 'empty', partitionCount: 1, config: {} });
  const { id } = await topics.create({ name: 'full', partitionCount: 3, config: {} });
  const segment = async () => {
    const { rows } = await database.pool.query<{ id: number }>('SELECT kafka.create_segment($1, now()) AS id', [id]);
    return rows[0]!.id;
  };
  // Sealed: 1,000 bytes of partition 0 up to offset 10, 500 of partition 1 up to 5. Open: a table with rows in it.
  const [sealed, open] = [await segment(), await segment()];
  await database.pool.query(`UPDATE kafka.segments SET state = 'sealed' WHERE segment_id = $1`, [sealed]);
  await database.pool.query(
    `INSERT INTO kafka.segment_partitions (segment_id, partition_id, base_offset, next_offset, max_timestamp, bytes)
     VALUES ($1, 0, 0, 10, 0, 1000), ($1, 1, 0, 5, 0, 500)`,
    [sealed],
  );
  await database.pool.query(
    `INSERT INTO kafka.segment_${open} (base_offset, last_offset, global_offset, max_timestamp, partition_id, records)
     SELECT n, n, n, 0, 0, repeat('x', 1000)::bytea FROM generate_series(10, 39) n`,
  );
});
after(() => database.drop());

/** Ends of the partitions of `full`: 30 records of partition 0 are in the open segment, 10 of partition 2. */
const ends = [40n, 5n, 10n];
const log = {
  partition: (topic: { name: string }, partition: number) =>
    topic.name === 'full' ? { logStartOffset: 0n, highWatermark: ends[partition]! } : undefined,
} as unknown as Log;

const ask = async (version: number, request: { topic: string; partitions: number[] }[] | null) => {
  const answer = await call(
    DescribeLogDirs,
    describeLogDirs,
    version,
    { topics: request },
    topicBroker(topics, {}, { log }),
  );
  const [dir] = answer.results;
  const sizes = dir!.topics.map(({ name, partitions }) => [
    name,
    partitions.map(({ partitionIndex, partitionSize }) => [partitionIndex, partitionSize] as const),
  ]);
  return {
    ...dir!,
    count: answer.results.length,
    sizes: Object.fromEntries(sizes) as Record<string, [number, bigint][]>,
  };
};

test('sealed bytes exactly, open segments by the records in them', async () => {
  for (let version = 0; version <= 5; version++) {
    const { sizes, errorCode, logDir, totalBytes, count } = await ask(version, null);
    assert.deepEqual([count, errorCode, logDir, totalBytes], [1, ErrorCode.NONE, 'postgres', -1n]);
    assert.deepEqual(Object.keys(sizes).sort(), ['empty', 'full']);
    const [zero, one, two] = sizes.full!.map(([, bytes]) => bytes);
    assert.equal(one, 500n);
    assert.ok(two! > 0n);
    // 30 of the 40 records in the open segment.
    assert.ok(zero! - 1000n >= 3n * two! && zero! - 1000n <= 3n * two! + 3n);
    assert.ok(zero! + two! > 30_000n);
    assert.deepEqual(sizes.empty, [[0, 0n]]);
  }
});

test('only what is asked for and is here', async () => {
  const { sizes } = await ask(4, [
    { topic: 'full', partitions: [1] },
    { topic: 'full', partitions: [2, 9] },
    { topic: 'none', partitions: [0] },
  ]);
  assert.deepEqual(Object.keys(sizes), ['full']);
  assert.deepEqual(
    sizes.full!.map(([partition]) => partition),
    [1, 2],
  );
});

test('one look serves everybody for a few seconds', async () => {
  const now = Date.now();
  const first = topics.sizes.read(now + 10_000);
  assert.equal(topics.sizes.read(now + 14_999), first);
  assert.notEqual(topics.sizes.read(now + 15_000), first);
  await first;
});

test('a database that fails is an offline directory, and is asked again', async () => {
  await database.pool.query('ALTER TABLE kafka.segments RENAME TO away');
  await assert.rejects(topics.sizes.read(Date.now() + 60_000));
  const offline = await ask(4, null);
  await database.pool.query('ALTER TABLE kafka.away RENAME TO segments');
  assert.deepEqual([offline.errorCode, offline.sizes], [ErrorCode.KAFKA_STORAGE_ERROR, {}]);
  assert.equal((await ask(4, null)).errorCode, ErrorCode.NONE);
});
