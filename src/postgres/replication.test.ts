// Confirmations as the walsender takes them, on a real server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { formatLsn, type Lsn, noLsn } from './lsn.ts';
import { type Message, PgOutputDecoder } from './pgoutput.ts';
import { ReplicationConnection } from './replication.ts';

let database: TestDatabase;
const slot = `replication_${Math.random().toString(36).slice(2, 10)}`;

before(async () => {
  database = await createDatabase();
  await database.pool.query('CREATE TABLE items (id int PRIMARY KEY)');
  await database.pool.query('CREATE PUBLICATION items FOR TABLE items');
  await database.pool.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
});

after(() => database?.drop());

/** Streams from where the slot stands until `enough`; gives the ids of each transaction and where it ended. */
async function stream(
  enough: (transactions: readonly (readonly [string, Lsn])[]) => boolean,
): Promise<{ connection: ReplicationConnection; transactions: (readonly [string, Lsn])[] }> {
  const connection = await ReplicationConnection.open(database.url, 'millrace test');
  const decoder = new PgOutputDecoder();
  const transactions: (readonly [string, Lsn])[] = [];
  let id = '';
  await new Promise<void>((resolve, reject) => {
    const started = connection.start(
      {
        slot,
        from: noLsn,
        options: { proto_version: '1', publication_names: '"items"' },
        walSenderTimeoutMs: 60_000,
      },
      {
        onMessage: (bytes, start, end) => {
          const message: Message = decoder.read(bytes, start, end);
          if (message.kind === 'insert') {
            const { after: row } = message;
            id = row.bytes.toString('utf8', row.starts[0], row.ends[0]);
          } else if (message.kind === 'commit') {
            transactions.push([id, message.endLsn]);
            if (enough(transactions)) resolve();
          }
        },
        onKeepalive: () => {},
        onDrained: () => {},
        onEnd: reject,
      },
    );
    started.catch(reject);
  });
  return { connection, transactions };
}

test('of two commits back to back the first is confirmed: after a restart the second comes, and not the first', async () => {
  await database.pool.query('INSERT INTO items VALUES (1)');
  await database.pool.query('INSERT INTO items VALUES (2)');
  const first = await stream(transactions => transactions.length === 2);
  const [one, two] = first.transactions;
  assert.deepEqual([one![0], two![0]], ['1', '2']);
  first.connection.confirm(one![1]);
  const flushed = 'SELECT FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn = $2';
  for (const deadline = Date.now() + 240_000; ; ) {
    if ((await database.pool.query(flushed, [slot, formatLsn(one![1])])).rowCount === 1) break;
    assert.ok(Date.now() < deadline, 'the confirmation never came');
  }
  first.connection.destroy();
  await database.pool.query(
    'SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1',
    [slot],
  );
  const second = await stream(transactions => transactions.length > 0);
  assert.deepEqual(second.transactions, [two]);
  second.connection.confirm(one![1]); // never goes back
  await second.connection.end();
});
