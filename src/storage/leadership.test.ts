import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { eventually, openLog } from '../../test/open-log.ts';
import type { OperationalError } from '../runtime/errors.ts';
import { beginTerm, type Term } from './leadership.ts';

let database: TestDatabase;

before(async () => {
  database = await createDatabase();
});

after(() => database?.drop());

const begin = (brokerId: number, databaseUrl = database.url): Promise<Term> =>
  beginTerm({
    databaseUrl,
    brokerId,
    advertised: `broker-${brokerId}:9092`,
    patienceMs: 5000,
    formerBackends: [],
    ownEpochs: new Set(),
    signal: new AbortController().signal,
    onLost: () => {},
  });

const endLeader = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND application_name = 'millrace leader' AND state = 'idle'
  ORDER BY backend_start LIMIT 1`;

const fence = (brokerId: number, { epoch }: Term) =>
  database.pool.query('SELECT kafka.fence($1, $2)', [brokerId, epoch]);

test('a term ends the one before it, of the same broker or another', async () => {
  const first = await begin(1);
  await fence(1, first);
  await first.connection.end();
  const again = await begin(1);
  await assert.rejects(fence(1, first), { code: 'KF001' });
  await again.connection.end();
  const other = await begin(2);
  await fence(2, other);
  await assert.rejects(fence(1, again), { code: 'KF001' }, 'broker 1 may still have connections that write');
  await other.connection.end();
});

test('global offsets go on where another broker left them', async () => {
  await database.pool.query('UPDATE kafka.brokers SET global_offset_next = 500 WHERE broker_id = 2');
  const term = await begin(3);
  assert.equal(term.globalOffsetFloor, 500n);
  await term.connection.end();
});

test('a broker that another has led after does not lead again: what it has in memory is not the log’s', async t => {
  const database = await createDatabase();
  t.after(() => database.drop());
  const deposed: Error[] = [];
  const { log, createTopic, append } = await openLog(database, { onDeposed: error => deposed.push(error) });
  t.after(() => log.stop());
  const topic = await createTopic('events');
  await append(topic);
  // Nobody led in between: it goes on.
  const { epoch } = log;
  await database.pool.query(endLeader);
  await eventually(() => log.leading && log.epoch > epoch);
  assert.equal((await append(topic)).baseOffset, 1n);
  // The other waits for the lead, has it as soon as it is free, and is gone when this one has it again.
  const next = begin(2, database.url);
  const waits = `SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`;
  await eventually(async () => (await database.pool.query(waits)).rowCount === 1);
  await database.pool.query(endLeader);
  await (await next).connection.end();
  await eventually(() => deposed.length === 1);
  assert.equal((deposed[0] as OperationalError).code, 'BROKER_RUNNING');
  assert.ok(!log.leading);
});
