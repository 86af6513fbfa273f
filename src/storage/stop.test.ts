import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { eventually, openLog } from '../../test/open-log.ts';
import { BufferPool } from '../runtime/buffer-pool.ts';
import { StoppedWhileStarting } from '../runtime/lifecycle.ts';
import { Log } from './log.ts';
import { Topics } from './topics.ts';

async function newLog({ url, pool }: TestDatabase): Promise<Log> {
  return new Log({
    databaseUrl: url,
    pool,
    topics: await Topics.load(pool),
    segmentRules: { closesAt: () => Number.POSITIVE_INFINITY, maxBytes: () => Number.POSITIVE_INFINITY },
    brokerId: 1,
    advertised: 'here:9092',
    writers: 2,
    readers: 1,
    tailCacheBytes: 0,
    memory: new BufferPool(1024),
    synchronousAcksOne: true,
    logger: pino({ level: 'silent' }),
    onDeposed: () => {},
  });
}

/** The log's own: locks go with them. */
async function connections({ pool }: TestDatabase): Promise<number> {
  const { rowCount } = await pool.query(
    `SELECT FROM pg_stat_activity WHERE datname = current_database()
       AND application_name IN ('millrace leader', 'millrace writer', 'millrace reader')`,
  );
  return rowCount!;
}

test('a log that is stopped while it starts leaves nothing behind, however far it has come', async t => {
  const database = await createDatabase();
  t.after(() => database.drop());
  for (const reached of [0, 0, 1, 1, 2, 3]) {
    const log = await newLog(database);
    const started = log.start().catch((error: unknown) => assert.ok(error instanceof StoppedWhileStarting));
    if (reached > 0) await eventually(async () => (await connections(database)) >= reached);
    await Promise.all([log.stop(), started]);
    await eventually(async () => (await connections(database)) === 0); // Postgres notices a little later
    assert.equal(log.leading, false);
  }
});

test('a log that waits for the lead of another is stopped at once, and can be stopped twice', async t => {
  const database = await createDatabase();
  t.after(() => database.drop());
  const { log: leader, createTopic, append } = await openLog(database);
  t.after(() => leader.stop());
  const log = await newLog(database);
  const started = assert.rejects(log.start(), StoppedWhileStarting);
  await eventually(async () => {
    const { rows } = await database.pool.query(`SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`);
    return rows.length > 0;
  });
  const begun = performance.now();
  await Promise.all([log.stop(), log.stop(), started]);
  assert.ok(performance.now() - begun < 8000, 'it gives up the lead after 10 s by itself');
  assert.equal((await append(await createTopic('still-led'))).error, 0);
});
