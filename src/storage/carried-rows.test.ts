// Rows that commit with batches (a capture's positions), and appends of which none is in the log without those before it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { newSeed, randomFrom } from '../../test/faults/random.ts';
import { eventually, openLog } from '../../test/open-log.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { buildBatch } from '../protocol/records.ts';
import type { AppendChain, CarriedRow, CarriedStatement } from './group.ts';

let database: TestDatabase;

const positions: CarriedStatement = {
  head: 'INSERT INTO position (chain, reached) VALUES',
  tail: 'ON CONFLICT (chain) DO UPDATE SET reached = excluded.reached',
};
const carriedBy = (chain: number, reached: number): CarriedRow => ({
  statement: positions,
  key: String(chain),
  row: `(${chain}, ${reached})`,
});
const poison = 666n;
const batchOf = (bytes: number, timestamp = 0n): Buffer =>
  buildBatch({ records: [{ timestamp, value: Buffer.alloc(bytes, 'x') }] });

before(async () => {
  database = await createDatabase();
  await database.pool.query(`
    CREATE TABLE position (chain int PRIMARY KEY, reached int NOT NULL);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused for the test'; END $$`);
});

after(async () => {
  await database?.drop();
});

const refusePoison = (segmentId: number) =>
  database.pool.query(`CREATE TRIGGER refuse BEFORE INSERT ON kafka.segment_${segmentId}
    FOR EACH ROW WHEN (new.max_timestamp = ${poison}) EXECUTE FUNCTION refuse()`);

test('whoever sees a batch sees the row it carries, and the other way round, while groups overlap', async t => {
  const { log, createTopic, append, partition } = await openLog(database, { writers: 3 });
  t.after(() => log.stop());
  const topic = await createTopic('overlapping');
  await append(topic);
  const [segment] = log.segments.unsealed(topic.id);
  const chain: AppendChain = { broken: false };
  const appended = Array.from({ length: 40 }, (_, i) => {
    const batch = batchOf(1024 * 1024);
    return log.append(topic, partition(topic), batch, -1, false, { carried: carriedBy(1, i + 1), chain }).result;
  });
  let done = false;
  const looking = (async () => {
    for (let last = false; !last; ) {
      last = done;
      const { rows } = await database.pool.query<{ batches: number; reached: number }>(
        `SELECT (SELECT count(*)::int - 1 FROM kafka.segment_${segment!.id}) AS batches,
                coalesce((SELECT reached FROM position WHERE chain = 1), 0) AS reached`,
      );
      assert.equal(rows[0]!.reached, rows[0]!.batches);
    }
  })();
  for (const { error } of await Promise.all(appended)) assert.equal(error, ErrorCode.NONE);
  done = true;
  await looking;
});

test('what a capture carries and Postgres refuses fails the capture, and no producer to the same topic', async t => {
  const { log, createTopic, append, partition } = await openLog(database);
  t.after(() => log.stop());
  const topic = await createTopic('shared');
  const chain: AppendChain = { broken: false };
  const refusedRow: CarriedRow = { statement: positions, key: '2', row: '(2, NULL)' };
  const captured = log.append(topic, partition(topic), batchOf(10), -1, false, { carried: refusedRow, chain }).result;
  const produced = append(topic);
  assert.equal((await captured).error, ErrorCode.UNKNOWN_SERVER_ERROR);
  assert.deepEqual(await produced, { error: ErrorCode.NONE, baseOffset: 0n, logAppendTime: -1n });
  assert.equal(chain.broken, true);
  const next = await log.append(topic, partition(topic), batchOf(10), -1, false, { carried: carriedBy(2, 2), chain })
    .result;
  assert.equal(next.error, ErrorCode.KAFKA_STORAGE_ERROR);
});

test('of a chain the log has what was given before the first that failed, and its row says so, over refusals and losses', {
  timeout: 300_000,
}, async t => {
  const seed = newSeed();
  const random = randomFrom(seed);
  t.diagnostic(`seed ${seed}`);
  const { log, createTopic, append, partition } = await openLog(database, { writers: 3 });
  t.after(() => log.stop());
  const topics = await Promise.all(['one', 'two', 'three'].map(name => createTopic(name, 2)));
  for (const topic of topics) {
    await append(topic);
    await refusePoison(log.segments.unsealed(topic.id)[0]!.id);
  }
  for (let round = 0; round < 20; round++) {
    const id = 100 + round;
    const chain: AppendChain = { broken: false };
    const poisoned = random.below(10) < 7 ? random.below(60) : -1;
    const plain: Promise<{ error: number }>[] = [];
    const chained = Array.from({ length: 60 }, (_, i) => {
      const topic = random.pick(topics);
      const bytes = random.below(10) < 3 ? 700_000 : 100;
      if (random.below(10) < 3) plain.push(log.append(topic, partition(topic, 0), batchOf(50), -1, false).result);
      const batch = batchOf(bytes, i === poisoned ? poison : 0n);
      return log.append(topic, partition(topic, random.below(2)), batch, -1, false, {
        carried: carriedBy(id, i + 1),
        chain,
      }).result;
    });
    const cut = random.below(10) < 4;
    if (cut) {
      await chained[random.below(20)];
      const { epoch } = log;
      const { rowCount } = await database.pool.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'millrace writer' ORDER BY random() LIMIT 1`,
      );
      if (rowCount) await eventually(() => log.epoch > epoch && log.leading);
    }
    const outcomes = (await Promise.all(chained)).map(({ error }) => error === ErrorCode.NONE);
    const reached = outcomes.indexOf(false) === -1 ? outcomes.length : outcomes.indexOf(false);
    assert.ok(!outcomes.includes(true, reached), `round ${round}: one is in the log after one that failed`);
    if (poisoned >= 0) assert.ok(reached <= poisoned);
    const { rows } = await database.pool.query<{ reached: number }>('SELECT reached FROM position WHERE chain = $1', [
      id,
    ]);
    assert.equal(rows[0]?.reached ?? 0, reached, `round ${round}`);
    const answers = await Promise.all(plain);
    // Those of a commit that was lost may not know.
    if (!cut) for (const { error } of answers) assert.equal(error, ErrorCode.NONE, 'a producer is not held to a chain');
  }
});
