// A table in a partition for each day: made ahead, of what came for other days, and dropped; rows stay where they belong.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type pg from 'pg';
import { openSinkRig, type SinkRig } from '../../test/sink-rig.ts';
import { dayMs, rollDays } from './day-partitions.ts';

let rig: SinkRig;
before(async () => {
  rig = await openSinkRig();
});
after(() => rig.remove());

const today = Math.floor(Date.now() / dayMs) * dayMs;
const day = (n: number): string => new Date(today + n * dayMs).toISOString().slice(0, 10);
const named = (table: string, ...days: number[]): string[] => days.map(n => `${table}_${day(n).replaceAll('-', '_')}`);

async function partitionsOf(table: string): Promise<Record<string, number>> {
  const rows = await rig.query<{ name: string; rows: number }>(
    `SELECT relname AS name, (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || oid::regclass, true, true, '')))[1]::text::int AS rows
     FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = $1::regclass ORDER BY 1`,
    [table],
  );
  return Object.fromEntries(rows.map(({ name, rows: count }) => [name, count]));
}

test('days are made ahead and of what has come; what is older than is kept goes', async t => {
  await rig.query(
    `CREATE TABLE seen (id int, at timestamptz, twice int GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (id, at))
     PARTITION BY RANGE (at)`,
  );
  await rig.query('CREATE INDEX ON seen (at)');
  const topic = await rig.createTopic('seen');
  const message = (id: number, n: number) => ({ key: { id, at: `${day(n)}T12:00:00Z` } });
  const value = {};
  await rig.send(
    topic,
    [0, -1, -5, -40, 9].map((n, id) => ({ ...message(id, n), value })),
  );
  const sink = await rig.start('seen', {
    topics: ['seen'],
    dailyPartitions: { column: 'at', keepDays: 30, aheadDays: 1 },
  });
  await sink.caughtUp();
  assert.deepEqual(await partitionsOf('seen'), {
    ...Object.fromEntries(named('seen', -1, 0, 1).map((name, i) => [name, i < 2 ? 1 : 0])),
    seen_other: 3,
  });
  const client = (await rig.database.pool.connect()) as pg.PoolClient;
  t.after(() => client.release());
  const name = { schema: 'public', name: 'seen' };
  await rollDays(client, name, { column: 'at', keepDays: 30, aheadDays: 1 }, today);
  assert.deepEqual(await partitionsOf('seen'), {
    ...Object.fromEntries(named('seen', -5, -1, 0, 1, 9).map((name, i) => [name, i === 3 ? 0 : 1])),
    seen_other: 0,
  });
  // Upserts and deletes find their rows where they are now.
  await rig.send(topic, [
    { ...message(4, 9), value },
    { ...message(0, 0), value },
  ]);
  await sink.caughtUp();
  assert.deepEqual(
    (await rig.query<{ id: number; twice: number }>('SELECT id, twice FROM seen ORDER BY id')).map(row => ({ ...row })),
    [0, 1, 2, 4].map(id => ({ id, twice: id * 2 })),
  );
  await rollDays(client, name, { column: 'at', keepDays: 3, aheadDays: 1 }, today + 3 * dayMs);
  assert.deepEqual(Object.keys(await partitionsOf('seen')), [...named('seen', 0, 1, 2, 3, 4, 9), 'seen_other']);
  await sink.stop();
});

test('a table that the sink makes is partitioned; one that is not is told', async () => {
  const topic = await rig.createTopic('made');
  await rig.send(topic, [{ value: { n: 1 } }]);
  const definition = {
    topics: ['made'],
    create: true,
    mode: 'insert',
    key: 'none',
    columns: { at: { from: 'timestamp', as: 'epoch_ms' } },
    dailyPartitions: { column: 'at' },
  };
  const sink = await rig.start('made', definition);
  await sink.caughtUp();
  const made = await partitionsOf('made');
  assert.deepEqual(Object.keys(made), [...named('made', -1, 0, 1, 2), 'made_other']);
  assert.equal(made.made_other, 1);
  await sink.stop();
  await rig.query('CREATE TABLE whole (id int PRIMARY KEY)');
  await rig.createTopic('whole');
  const refused = await rig.start('whole', { topics: ['whole'], dailyPartitions: { column: 'at' } });
  const { reason } = await refused.reached('retrying');
  assert.match(reason!, /"whole" is not partitioned: make it PARTITION BY RANGE \("at"\)/);
  await refused.stop();
});
