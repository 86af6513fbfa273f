// Waiting: a log that takes nothing for longer than the walsender is patient, a capture that reads slowly, a slot that
// another instance has, transactions that are prepared while both sides are started anew.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { type CaptureRig, openRig, type RunningCapture } from '../capture-rig.ts';
import { type OwnPostgres, startPostgres } from '../own-postgres.ts';

let postgres: OwnPostgres;
let rig: CaptureRig;
let sql: pg.Client;

before(async () => {
  [postgres, rig] = await Promise.all([startPostgres({ fsync: 'off', max_prepared_transactions: '10' }), openRig()]);
  sql = await connect();
  await sql.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
});

after(async () => {
  await sql?.end().catch(() => {});
  await rig?.remove();
  await postgres?.remove();
});

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: postgres.url });
  client.on('error', () => {}); // the server is restarted under it
  await client.connect();
  return client;
}

const start = (name: string, more: object = {}): RunningCapture =>
  rig.start(name, { source: postgres.url, tables: ['public.items'], format: 'plain', ...more });

const topicOf = (name: string): string => `${name}.public.items`;
const ids = async (name: string): Promise<number[]> =>
  (await rig.records(topicOf(name))).map(({ value }) => JSON.parse(value!).data.id as number);

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (const deadline = Date.now() + 240_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`never ${what}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

interface Walsender {
  readonly pid: number;
  /** When it last heard from us, s since 1970. */
  readonly heard: number;
  readonly now: number;
}

async function walsender(name: string): Promise<Walsender> {
  const { rows } = await sql.query<Walsender>(
    `SELECT s.active_pid AS pid, extract(epoch FROM r.reply_time)::float8 AS heard,
            extract(epoch FROM clock_timestamp())::float8 AS now
     FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1`,
    [`${name}_${rig.suffix}`],
  );
  assert.ok(rows[0], 'its walsender has gone');
  return rows[0];
}

test('a log that takes nothing for longer than wal_sender_timeout: feedback goes on, memory is bounded, then it goes on', {
  timeout: 300_000,
}, async t => {
  // So long that half of it is enough for an answer on a machine that does much else.
  const timeoutMs = 4000;
  await sql.query(`ALTER ROLE CURRENT_USER SET wal_sender_timeout = '${timeoutMs}ms'`);
  t.after(() => sql.query('ALTER ROLE CURRENT_USER RESET wal_sender_timeout'));
  const held = start('held', { partitions: 3 });
  await held.reached('streaming');
  await sql.query(`INSERT INTO items VALUES (0, 'before')`);
  const [first] = await rig.until(topicOf('held'), records => records.length === 1);
  const told = 'SELECT FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn >= $2';
  const slot = [`held_${rig.suffix}`, first!.headers.commit_lsn];
  await until(async () => (await sql.query(told, slot)).rowCount === 1, 'confirmed');
  // Every append carries a position: none commits while somebody has their table.
  const holder = await rig.database.pool.connect();
  t.after(() => holder.release(true));
  await holder.query('BEGIN; LOCK TABLE kafka.capture_positions IN ACCESS EXCLUSIVE MODE');
  const before = await walsender('held');
  const memory = process.memoryUsage().rss;
  const rows = 100_000;
  // More than the sockets' buffers and what may be under way together: the walsender is kept waiting in its writes.
  let firstEnd: string | undefined;
  for (let at = 0; at < rows; at += 10_000) {
    await sql.query(`INSERT INTO items SELECT i, repeat('x', 1000) FROM generate_series($1::int, $1::int + 9999) i`, [
      at + 1,
    ]);
    firstEnd ??= (await sql.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')).rows[0]!.lsn;
  }
  let most = 0;
  await until(async () => {
    most = Math.max(most, process.memoryUsage().rss - memory);
    const { pid, heard } = await walsender('held');
    assert.equal(pid, before.pid, 'the walsender gave up on us');
    return heard - before.now > (2 * timeoutMs) / 1000;
  }, 'heard of for two timeouts');
  const passed = (await sql.query(told, [slot[0], firstEnd])).rowCount;
  assert.equal(passed, 0, 'nothing was confirmed that is not in the log');
  assert.deepEqual(held.states, ['streaming']);
  t.diagnostic(`${(most / 1e6).toFixed(0)} MB more while 100 MB waited`);
  assert.ok(most < 100e6, `it took ${(most / 1e6).toFixed(0)} MB`);
  await holder.query('ROLLBACK');
  await until(async () => held.status().records >= rows + 1, 'captured');
  await until(async () => (await rig.size(topicOf('held'))) >= rows + 1, 'in the log');
  assert.equal(await rig.size(topicOf('held')), rows + 1);
  await until(async () => (await sql.query(told, [slot[0], firstEnd])).rowCount === 1, 'confirmed');
  await held.finish();
});

test('a log that loses its connections again and again while changes come', { timeout: 300_000 }, async () => {
  await sql.query('TRUNCATE items');
  const cut = start('cut');
  await cut.reached('streaming');
  for (let round = 0; round < 10; round++) {
    await sql.query('INSERT INTO items SELECT i FROM generate_series($1::int, $1::int + 99) i', [round * 100]);
    await rig.database.pool.query(
      `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'millrace writer'`,
    );
  }
  await rig.until(topicOf('cut'), records => records.length >= 1000);
  assert.deepEqual(
    await ids('cut'),
    Array.from({ length: 1000 }, (_, i) => i),
  );
  await cut.finish();
});

test('of two instances on a slot one streams; the other has taken over within ten seconds of its end', {
  timeout: 300_000,
}, async () => {
  await sql.query('TRUNCATE items');
  const begun = performance.now();
  let active = start('shared');
  await active.reached('streaming');
  // Between two tries lie 4 s at most; the rest is what a start takes, on a machine as busy as this one is.
  const startMs = performance.now() - begun;
  let waiting = start('shared');
  for (let round = 0; round < 2; round++) {
    await sql.query('INSERT INTO items VALUES ($1)', [round * 2]);
    await rig.until(topicOf('shared'), records => records.length === round * 2 + 1);
    // Refused until its pauses have grown.
    await until(async () => {
      const { state, reason } = waiting.status();
      assert.ok(state === 'starting' || state === 'retrying', `${state}: ${reason}; the other: ${active.states}`);
      return waiting.states.filter(state => state === 'retrying').length > 3;
    }, 'refused');
    assert.ok(!waiting.states.includes('streaming'));
    await active.halt();
    await within(10_000 + 10 * startMs, waiting.reached('streaming'));
    await sql.query('INSERT INTO items VALUES ($1)', [round * 2 + 1]);
    await rig.until(topicOf('shared'), records => records.length === round * 2 + 2);
    [active, waiting] = [waiting, start('shared')];
  }
  await waiting.halt();
  assert.deepEqual(await ids('shared'), [0, 1, 2, 3]);
  await active.finish();
});

for (const size of [1, 4000]) {
  test(`transactions of ${size} rows, prepared, then PostgreSQL crashes and the capture begins anew: once or never`, {
    timeout: 300_000,
  }, async () => {
    await sql.query('TRUNCATE items');
    const name = `prepared_${size}`;
    let running = start(name);
    await running.reached('streaming');
    await sql.query(`SET logical_decoding_work_mem = '64kB'`);
    for (const [gid, from] of [
      ['kept', 0],
      ['gone', 10_000],
      ['later', 20_000],
    ] as const) {
      await sql.query(`BEGIN; INSERT INTO items SELECT i, repeat('p', 200) FROM generate_series(${from}, ${from + size - 1}) i;
        PREPARE TRANSACTION '${gid}'`);
    }
    const crash = async (): Promise<void> => {
      await sql.end().catch(() => {});
      await postgres.stop(true);
      await postgres.start();
      sql = await connect();
    };
    const beginAnew = async (): Promise<void> => {
      await running.halt();
      running = start(name);
      await running.reached('streaming');
    };
    await crash();
    await running.reached('streaming');
    await sql.query(`COMMIT PREPARED 'kept'`);
    await crash();
    await beginAnew();
    await sql.query(`ROLLBACK PREPARED 'gone'`);
    await sql.query(`INSERT INTO items VALUES (30000, 'plain')`);
    await crash();
    await beginAnew();
    await sql.query(`COMMIT PREPARED 'later'`);
    await rig.until(topicOf(name), records => records.length >= 2 * size + 1);
    await beginAnew();
    await sql.query(`INSERT INTO items VALUES (30001, 'end')`);
    await rig.until(topicOf(name), records => records.length >= 2 * size + 2);
    const rows = (from: number) => Array.from({ length: size }, (_, i) => from + i);
    assert.deepEqual(await ids(name), [...rows(0), 30_000, ...rows(20_000), 30_001]);
    await running.finish();
  });
}
