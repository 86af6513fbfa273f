// Runs every SQL example of docs/sql.md.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { createDatabase, onServer, type TestDatabase } from '../database.ts';
import { encodeBatch } from './foreign-encoder.ts';
import { append, createTopic, openSegment } from './log-rig.ts';

const text = readFileSync(new URL('../../docs/sql.md', import.meta.url), 'utf8');
const blocks = [...text.matchAll(/```sql\n(.*?)```(?:\n```\n(.*?)```)?/gs)].map(([, sql, output]) => ({
  sql: sql!,
  output,
}));
// Roles belong to the whole server.
const analyst = `analyst_${randomBytes(6).toString('hex')}`;
let database: TestDatabase;

before(async () => {
  database = await createDatabase();
  const { pool } = database;
  const topic = await createTopic(pool, 'orders', 1);
  const timestamp = BigInt(Date.now());
  const orders = [
    ['alice', '{"item":"tea","amount":3}'],
    ['bob', '{"item":"milk","amount":1}'],
    ['alice', '{"item":"cup","amount":2}'],
  ] as const;
  const records = await encodeBatch({
    baseOffset: 0n,
    baseTimestamp: timestamp,
    maxTimestamp: timestamp,
    records: orders.map(([key, value], offsetDelta) => ({
      offsetDelta,
      timestamp,
      key: Buffer.from(key),
      value: Buffer.from(value),
      headers: [
        ['trace', Buffer.from('a1')],
        ['trace', Buffer.from('b2')],
      ],
    })),
  });
  await append(pool, await openSegment(pool, topic), [{ partition: 0, baseOffset: 0n, lastOffset: 2n, records }]);
  await pool.query(
    `INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset)
    VALUES ('billing', $1, 0, 1)`,
    [topic],
  );
});
after(async () => {
  await database.drop();
  await onServer(client => client.query(`DROP ROLE IF EXISTS ${analyst}`));
});

/** As psql prints a cell. */
const printed = (value: unknown): string => (typeof value === 'object' ? psqlJson(value) : String(value));
const psqlJson = (value: unknown): string =>
  JSON.stringify(value, null, 1).replace(/\n\s*/g, ' ').replace('{ ', '{').replace(' }', '}');

for (const { sql, output } of blocks) {
  test(sql.split('\n').slice(0, 2).join(' '), async () => {
    let rows: Record<string, unknown>[] = [];
    for (const statement of sql
      .replaceAll('analyst', analyst)
      .split(/;\n/)
      .filter(part => part.trim() !== '')) {
      ({ rows } = await database.pool.query(statement));
    }
    if (!/^(CREATE|GRANT|ALTER)/.test(sql)) assert.ok(rows.length > 0, 'an example that shows nothing');
    if (output === undefined) return;
    const shown = output
      .trimEnd()
      .split('\n')
      .slice(2)
      .map(line => line.split('|').map(cell => cell.trim()));
    assert.deepEqual(
      rows.map(row => Object.values(row).map(printed)),
      shown,
    );
  });
}
