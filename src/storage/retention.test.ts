import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { pino } from 'pino';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { batchOf, type OpenLog, openLog } from '../../test/open-log.ts';
import { settingsWith } from '../runtime/config.ts';
import { Retention } from './retention.ts';
import { serverDefaults } from './server-defaults.ts';
import { effectiveConfig } from './topic-config.ts';
import type { Topic } from './topics.ts';

const hour = 3_600_000;
const defaults = serverDefaults(settingsWith({}));
let database: TestDatabase;
let opened: OpenLog;
let retention: Retention;
const failures: string[] = [];

before(async () => {
  database = await createDatabase();
  opened = await openLog(database);
  retention = new Retention({
    pool: database.pool,
    log: opened.log,
    topics: opened.topics,
    settingsOf: topic => ({ ...effectiveConfig(topic, defaults), retentionMs: hour }),
    brokerId: 1,
    intervalMs: 1_000_000,
    producerIdExpirationMs: 24 * hour,
    logger: pino({}, { write: line => void failures.push(JSON.parse(line).msg) }),
  });
});

after(async () => {
  await retention?.stop();
  await opened?.log.stop();
  await database?.drop();
});

/** One record of this time, in a segment that is written no more. */
async function appendAndClose(topic: Topic, timestamp: bigint): Promise<void> {
  const { log, partition } = opened;
  const { error } = await log.append(topic, partition(topic), batchOf(1, timestamp), -1, false).result;
  assert.equal(error, 0);
  for (const segment of log.segments.unsealed(topic.id)) log.segments.close(segment);
}

test('what is older than retention.ms goes, and the log goes on at its offset', async () => {
  const topic = await opened.createTopic('old');
  await appendAndClose(topic, BigInt(Date.now() - 2 * hour));
  await retention.run();
  assert.equal(opened.partition(topic).logStartOffset, 1n);
  assert.deepEqual(await opened.append(topic), { error: 0, baseOffset: 1n, logAppendTime: -1n });
});

test('records without timestamps are kept for retention.ms from when they were appended', async () => {
  const topic = await opened.createTopic('timeless');
  await appendAndClose(topic, -1n);
  await retention.run();
  assert.equal(opened.partition(topic).logStartOffset, 0n);
  const [{ segment_id: id }] = (
    await database.pool.query('SELECT segment_id FROM kafka.segments WHERE topic_id = $1', [topic.id])
  ).rows as [{ segment_id: number }];
  await database.pool.query(`UPDATE kafka.segment_${id} SET appended_at = now() - interval '2 hours'`);
  await retention.run();
  assert.equal(opened.partition(topic).logStartOffset, 1n);
});

test('a segment that cannot be dropped does not keep the others', async t => {
  const [stuck, free] = [await opened.createTopic('stuck'), await opened.createTopic('free')];
  await opened.append(stuck);
  await opened.append(free);
  const tables = [stuck, free].map(topic => `kafka.segment_${opened.log.segments.unsealed(topic.id)[0]!.id}`);
  await database.pool.query(`CREATE VIEW public.of_a_user AS SELECT * FROM ${tables[0]}`);
  t.after(() => database.pool.query('DROP VIEW public.of_a_user'));
  await opened.topics.delete(stuck);
  await opened.topics.delete(free);
  failures.length = 0;
  await retention.run();
  const { rows } = await database.pool.query('SELECT to_regclass($1) AS stuck, to_regclass($2) AS free', tables);
  assert.deepEqual(rows, [{ stuck: tables[0], free: null }]);
  assert.equal(failures.length, 1);
});
