import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { pino } from 'pino';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { eventually, type OpenLog, openLog } from '../../test/open-log.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { settingsWith } from '../runtime/config.ts';
import { Retention } from './retention.ts';
import { serverDefaults } from './server-defaults.ts';
import { effectiveConfig } from './topic-config.ts';

const defaults = serverDefaults(settingsWith({}));
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

test('a segment that is sealed while a writer waits for something else gets none of its batches', async () => {
  const { log, createTopic, append, partition } = opened;
  const [first, second] = [await createTopic('sealed-meanwhile'), await createTopic('opened-slowly')];
  await append(first);
  const [segment] = log.segments.unsealed(first.id);
  const blocker = await database.pool.connect();
  await blocker.query('BEGIN; LOCK TABLE kafka.producer_snapshots');
  // One group: the first topic's segment is known, the second topic's partition cannot be opened yet.
  const appended = [append(first), append(second)];
  await eventually(async () => {
    const { rows } = await blocker.query(
      `SELECT FROM pg_locks WHERE NOT granted AND relation = 'kafka.producer_snapshots'::regclass`,
    );
    return rows.length > 0;
  });
  log.segments.close(segment!);
  await log.segments.sealRolled();
  await blocker.query('ROLLBACK');
  blocker.release();
  assert.deepEqual(
    (await Promise.all(appended)).map(({ error }) => error),
    [0, 0],
  );
  const read = await log.read(partition(first), 1n, 1024, true);
  assert.ok(read.bytes > 0, 'the record is acknowledged, and must be there to read');
});

test('a sealed segment is written no more, even if it could not be frozen', async () => {
  const { log, createTopic, append } = opened;
  const topic = await createTopic('not-frozen');
  await append(topic);
  const [segment] = log.segments.unsealed(topic.id);
  const blocker = await database.pool.connect();
  await blocker.query(`BEGIN; LOCK TABLE kafka.segment_${segment!.id} IN SHARE UPDATE EXCLUSIVE MODE`);
  log.segments.close(segment!);
  const sealing = log.segments.sealRolled().then(
    () => undefined,
    (error: Error) => error,
  );
  await eventually(async () => {
    const { rows } = await database.pool.query(
      `SELECT pg_cancel_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND query LIKE 'VACUUM%' AND wait_event_type = 'Lock'`,
    );
    return rows.length > 0;
  });
  assert.match(String(await sealing), /cancel/);
  await blocker.query('ROLLBACK');
  blocker.release();
  assert.equal((await append(topic)).error, 0);
  const { rows } = await database.pool.query(`SELECT base_offset FROM kafka.segment_${segment!.id}`);
  assert.deepEqual(
    rows,
    [{ base_offset: 0n }],
    'what comes later would be missing from the count made when it was sealed',
  );
});

test('a read that looks while a segment is being sealed skips none of it', async () => {
  const { log, createTopic, append, partition } = opened;
  const topic = await createTopic('sealed-while-read');
  await append(topic);
  const [segment] = log.segments.unsealed(topic.id);
  log.segments.close(segment!);
  await append(topic); // in the next segment
  const { locate } = log.segments;
  log.segments.locate = async (...of) => {
    log.segments.locate = locate;
    const located = await locate.apply(log.segments, of); // Postgres has answered, late
    await log.segments.sealRolled();
    return located;
  };
  const read = await log.read(partition(topic), 0n, 1024, true);
  assert.equal(read.chunks[0]!.readBigInt64BE(), 0n);
});

test('what lay in a dropped segment is out of range, even if nobody was told that the log start moved', async () => {
  const { log, createTopic, append, partition } = opened;
  const topic = await createTopic('dropped');
  await append(topic, 3);
  const [segment] = log.segments.unsealed(topic.id);
  log.segments.close(segment!);
  await log.segments.sealRolled();
  await append(topic);
  // What retention leaves when the answer to its COMMIT is lost: it drops the table at its next round.
  await database.pool.query(
    'UPDATE kafka.partitions SET log_start_offset = 3, next_offset_floor = 3 WHERE topic_id = $1',
    [topic.id],
  );
  const { locate } = log.segments;
  const located = await locate.call(log.segments, topic.id, 0, 0n);
  await database.pool.query(`DROP TABLE kafka.segment_${segment!.id}`);
  await database.pool.query('DELETE FROM kafka.segments WHERE segment_id = $1', [segment!.id]);
  let looks = 0;
  log.segments.locate = async (...of) => (++looks > 2 ? locate.apply(log.segments, of) : located);
  // Two at once: the second uses a statement that the first has failed to prepare.
  const read = () => log.read(partition(topic), 0n, 1024, true);
  const answers = await Promise.all([read(), read()]);
  log.segments.locate = locate;
  assert.deepEqual(
    answers.map(({ error }) => error),
    [ErrorCode.OFFSET_OUT_OF_RANGE, ErrorCode.OFFSET_OUT_OF_RANGE],
  );
  assert.equal(partition(topic).logStartOffset, 3n);
  assert.equal((await log.read(partition(topic), 3n, 1024, true)).chunks[0]!.readBigInt64BE(), 3n);
});

test('a read where a topic lay that has been deleted and dropped finds it unknown', async () => {
  const { log, topics, createTopic, append, partition } = opened;
  const topic = await createTopic('deleted-while-read');
  await append(topic);
  const read = partition(topic);
  for (const segment of log.segments.unsealed(topic.id)) log.segments.close(segment);
  await log.segments.sealRolled();
  assert.ok((await log.read(read, 0n, 1024, true)).bytes > 0); // and where it lies is remembered
  await topics.delete(topic);
  await log.segments.dropDoomed();
  assert.equal((await log.read(read, 0n, 1024, true)).error, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
});

test('a segment whose making was not answered does not stay listed as open', async t => {
  let lose = true;
  const query = async (...of: unknown[]): Promise<unknown> => {
    const result = await (database.pool.query as (...of: unknown[]) => Promise<unknown>).apply(database.pool, of);
    if (!lose || !String(of[0]).includes('kafka.create_segment')) return result;
    lose = false;
    throw new Error('Connection terminated unexpectedly');
  };
  await opened.log.stop();
  opened = await openLog(database, { pool: Object.create(database.pool, { query: { value: query } }) });
  const { log, createTopic, append, partition } = opened;
  const topic = await createTopic('made-twice');
  assert.equal((await append(topic)).error, ErrorCode.KAFKA_STORAGE_ERROR);
  assert.equal((await append(topic)).error, 0);
  const retention = new Retention({
    pool: database.pool,
    log,
    topics: opened.topics,
    settingsOf: topic => effectiveConfig(topic, defaults),
    brokerId: 1,
    intervalMs: 1_000_000,
    producerIdExpirationMs: 1_000_000,
    logger: pino({ level: 'silent' }),
  });
  t.after(() => retention.stop());
  await retention.run();
  const { rows } = await database.pool.query(
    'SELECT segment_id AS id, state FROM kafka.segments WHERE topic_id = $1 ORDER BY segment_id',
    [topic.id],
  );
  assert.deepEqual(rows, [{ id: log.segments.unsealed(topic.id)[0]!.id, state: 'open' }]);
  assert.equal((await append(topic)).baseOffset, 1n);
  assert.ok((await log.read(partition(topic), 0n, 1024, true)).bytes > 0);
});
