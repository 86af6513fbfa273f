import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { batchOf, type OpenLog, openLog } from '../../test/open-log.ts';
import { batchBytes, lastOffset, splitBatches } from '../protocol/record-batch.ts';
import type { PartitionLog } from './partition-log.ts';

let database: TestDatabase;
let opened: OpenLog;

before(async () => {
  database = await createDatabase();
  opened = await openLog(database);
});

after(async () => {
  await opened?.log.stop();
  await database?.drop();
});

/** Reads on from `offset` to the high watermark, as a consumer does; `between` runs after each answer. */
async function readOn(
  partition: PartitionLog,
  offset: bigint,
  maxBytes: number,
  between: () => Promise<unknown> | undefined = () => undefined,
): Promise<Buffer[]> {
  const batches: Buffer[] = [];
  for (let next = offset; next < partition.highWatermark; ) {
    const { error, chunks, release } = await opened.log.read(partition, next, maxBytes, true);
    assert.equal(error, 0);
    for (const chunk of chunks) batches.push(...splitBatches(Buffer.from(chunk)));
    release();
    next = lastOffset(batches.at(-1)!) + 1n;
    await between();
  }
  return batches;
}

const basesOf = (batches: readonly Buffer[]): bigint[] => batches.map(batch => batch.readBigInt64BE());

test('who reads on gets every batch once, whatever is appended, sealed and begun meanwhile', async () => {
  const { log, createTopic, append, partition } = opened;
  const topic = await createTopic('read-on');
  const expected: bigint[] = [];
  const add = async () => expected.push((await append(topic, 3)).baseOffset);
  for (let i = 0; i < 40; i++) await add();
  const size = batchBytes(batchOf(3));
  let answers = 0;
  const batches = await readOn(partition(topic), 0n, 2 * size + 1, async () => {
    answers++;
    if (answers % 5 === 0 && answers < 30) {
      log.segments.close(log.segments.unsealed(topic.id).at(-1)!);
      await log.segments.sealRolled();
    }
    if (answers % 3 === 0 && answers < 30) await add();
  });
  assert.deepEqual(basesOf(batches), expected);
});

test('several who read the same at different places do not get each other’s rows', async () => {
  const { createTopic, append, partition } = opened;
  const topic = await createTopic('read-together');
  const expected: bigint[] = [];
  for (let i = 0; i < 30; i++) expected.push((await append(topic, 2)).baseOffset);
  const size = batchBytes(batchOf(2));
  const reads = [0, 0, 2, 4, 26].map(async first => {
    assert.deepEqual(basesOf(await readOn(partition(topic), expected[first]!, 3 * size)), expected.slice(first));
  });
  await Promise.all(reads);
});

test('what had not been flushed when it was read ahead is read again', async () => {
  const { createTopic, append, partition } = opened;
  const topic = await createTopic('not-flushed');
  for (const count of [10, 1, 1]) await append(topic, count);
  const of = partition(topic);
  const maxBytes = batchBytes(batchOf(10)); // the first, or the two others
  of.highWatermark = 11n; // as though the commit of the third batch had been asynchronous
  await opened.log.read(of, 0n, maxBytes, true);
  // Postgres has crashed and lost that commit, and another batch has taken its place.
  const other = batchOf(1, 0n);
  other.writeBigInt64BE(11n);
  const [segment] = opened.log.segments.unsealed(topic.id);
  await database.pool.query(`UPDATE kafka.segment_${segment!.id} SET records = $1 WHERE base_offset = 11`, [other]);
  of.highWatermark = 12n;
  const batches = await readOn(of, 10n, maxBytes);
  assert.deepEqual(basesOf(batches), [10n, 11n]);
  assert.deepEqual(batches[1], other);
});

test('reading an open segment asks the catalogue once, until a segment is sealed', async t => {
  const { log, createTopic, append, partition } = opened;
  const topic = await createTopic('asked-once');
  for (let i = 0; i < 6; i++) await append(topic);
  const { segments } = log;
  const { locate } = segments;
  let asked = 0;
  segments.locate = (...of) => {
    asked++;
    return locate.apply(segments, of);
  };
  t.after(() => {
    segments.locate = locate;
  });
  await readOn(partition(topic), 0n, 1);
  assert.equal(asked, 1);
  segments.close(segments.unsealed(topic.id)[0]!);
  await append(topic); // in the next segment
  await segments.sealRolled();
  assert.deepEqual(basesOf(await readOn(partition(topic), 5n, 1)), [5n, 6n]);
  assert.ok(asked > 1);
});
