// Batches that keep the offsets of where they are copied from: gaps stay, readers pass over them, and starts do too.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { batchOf, type OpenLog, openLog } from '../../test/open-log.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { baseOffset, splitBatches } from '../protocol/record-batch.ts';
import type { CarriedStatement } from './group.ts';
import type { Topic } from './topics.ts';

let database: TestDatabase;
before(async () => {
  database = await createDatabase();
  await database.pool.query('CREATE TABLE place (least int PRIMARY KEY, got int NOT NULL)');
});
after(() => database?.drop());

const places: CarriedStatement = { head: 'INSERT INTO place VALUES', tail: '' };

/** Base offsets of all batches from `offset` on. */
async function read({ log, partition }: OpenLog, topic: Topic, offset: bigint): Promise<bigint[]> {
  const found: bigint[] = [];
  for (let at = offset; at < partition(topic).highWatermark; ) {
    const { error, chunks } = await log.read(partition(topic), at, 1, true);
    assert.equal(error, ErrorCode.NONE);
    const batches = chunks.flatMap(chunk => splitBatches(chunk));
    found.push(...batches.map(batch => baseOffset(batch)));
    at = found.at(-1)! + 3n;
  }
  return found;
}

for (const tailCacheBytes of [0, 16 * 2 ** 20]) {
  const cache = tailCacheBytes === 0 ? 'without a tail cache' : 'with one';
  test(`a batch gets the offset that it asks for, or the log's end, and readers pass over gaps, ${cache}`, async t => {
    const open = await openLog(database, { tailCacheBytes });
    t.after(() => open.log.stop());
    const { log, topics, createTopic, partition } = open;
    const topic = await createTopic(`gaps${tailCacheBytes}`);
    const append = (leastOffset?: bigint) => {
      const options = leastOffset === undefined ? {} : { leastOffset };
      return log.append(topic, partition(topic), batchOf(3), -1, false, options).result;
    };
    // At once: one group, and so rows of several batches with gaps between them.
    const all = await Promise.all([append(), append(10n), append(11n), append(), append(100n)]);
    assert.deepEqual(
      all.map(({ baseOffset: at }) => at),
      [0n, 10n, 13n, 16n, 100n],
    );
    assert.equal((await append(300n)).baseOffset, 300n);
    assert.equal(partition(topic).highWatermark, 303n);
    assert.deepEqual(await read(open, topic, 0n), [0n, 10n, 13n, 16n, 100n, 300n]);
    for (const [offset, next] of [
      [5n, 10n],
      [19n, 100n],
      [200n, 300n],
    ] as const) {
      assert.equal((await read(open, topic, offset))[0], next, `from ${offset}`);
    }
    const { rows } = await database.pool.query<{ at: bigint; global: bigint }>(
      `SELECT partition_offset AS at, global_offset AS global FROM kafka.messages WHERE topic = $1 ORDER BY 1`,
      [topic.name],
    );
    assert.deepEqual(
      rows.map(({ at }) => at),
      [0n, 10n, 13n, 16n, 100n, 300n].flatMap(base => [base, base + 1n, base + 2n]),
    );
    assert.ok(rows.every(({ global }, i) => i === 0 || global > rows[i - 1]!.global));
    assert.equal(topics.get(topic.name), topic);
  });
}

test('after a restart the log ends, and begins, where it did; what is carried knows the offset that was given', async () => {
  const first = await openLog(database);
  const begun = await first.topics.create({ name: 'begun', partitionCount: 2, config: {}, starts: [1000n, 0n] });
  assert.equal(first.partition(begun).logStartOffset, 1000n);
  const { error } = await first.log.read(first.partition(begun), 999n, 1, true);
  assert.equal(error, ErrorCode.OFFSET_OUT_OF_RANGE);
  const append = (open: OpenLog, topic: Topic, leastOffset: bigint) =>
    open.log.append(topic, open.partition(topic), batchOf(3), -1, false, {
      leastOffset,
      carried: got => ({ statement: places, key: `${leastOffset}`, row: `(${leastOffset}, ${got})` }),
    }).result;
  assert.equal((await first.append(begun, 3)).baseOffset, 1000n);
  assert.equal((await append(first, begun, 1002n)).baseOffset, 1003n);
  assert.equal((await append(first, begun, 2000n)).baseOffset, 2000n);
  await first.log.stop();
  const { rows } = await database.pool.query('SELECT least, got FROM place ORDER BY least');
  assert.deepEqual(rows, [
    { least: 1002, got: 1003 },
    { least: 2000, got: 2000 },
  ]);

  const second = await openLog(database);
  const again = second.topics.get('begun')!;
  const { logStartOffset, end } = second.partition(again);
  assert.deepEqual([logStartOffset, end, second.partition(again, 1).end], [1000n, 2003n, 0n]);
  assert.deepEqual(await read(second, again, 1000n), [1000n, 1003n, 2000n]);
  await second.log.stop();
});
