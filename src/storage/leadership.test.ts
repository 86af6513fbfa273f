import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { beginTerm, type Term } from './leadership.ts';

let database: TestDatabase;

before(async () => {
  database = await createDatabase();
});

after(() => database?.drop());

const begin = (brokerId: number): Promise<Term> =>
  beginTerm({
    databaseUrl: database.url,
    brokerId,
    advertised: `broker-${brokerId}:9092`,
    patienceMs: 5000,
    formerBackends: [],
    signal: new AbortController().signal,
    onLost: () => {},
  });

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
