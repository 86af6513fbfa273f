// Slots that are gone, lost, moved or idle, servers that restart, transactions that are prepared: on a PostgreSQL of its own.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { type CaptureRig, openRig, type RunningCapture } from '../capture-rig.ts';
import { type OwnPostgres, startPostgres } from '../own-postgres.ts';

let postgres: OwnPostgres;
let rig: CaptureRig;
let sql: pg.Client;

before(async () => {
  [postgres, rig] = await Promise.all([
    startPostgres({
      max_prepared_transactions: '5',
      max_replication_slots: '3',
      max_wal_size: '64MB',
      min_wal_size: '32MB',
      fsync: 'off',
    }),
    openRig(),
  ]);
  sql = await connect();
  await sql.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
});

after(async () => {
  await sql?.end().catch(() => {});
  await rig?.remove();
  await postgres?.remove();
});

async function connect(database?: string): Promise<pg.Client> {
  const url = new URL(postgres.url);
  if (database) url.pathname = `/${database}`;
  const client = new pg.Client({ connectionString: url.href });
  client.on('error', () => {}); // the server is restarted under it
  await client.connect();
  return client;
}

const start = (name: string, more: object = {}): RunningCapture =>
  rig.start(name, { source: postgres.url, tables: ['public.items'], format: 'plain', ...more });

const topicOf = (name: string): string => `${name}.public.items`;
const ids = async (name: string): Promise<number[]> =>
  (await rig.records(topicOf(name))).flatMap(({ value }) =>
    value === null ? [] : [JSON.parse(value).data.id as number],
  );

async function dropSlot(name: string): Promise<void> {
  const slot = `${name}_${rig.suffix}`;
  for (let dropped = false; !dropped; ) {
    await sql.query(
      `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active`,
      [slot],
    );
    dropped = await sql.query('SELECT pg_drop_replication_slot($1)', [slot]).then(
      () => true,
      (error: { code?: string }) => {
        if (error.code !== '55006') throw error; // the capture was quicker
        return false;
      },
    );
  }
}

/** What the hint says to run, on the databases it is for. */
async function runHint(hint: string): Promise<void> {
  for (const [statement] of hint.matchAll(/(DELETE FROM kafka|SELECT pg_drop)[^;]*/g)) {
    if (statement.startsWith('DELETE')) await rig.database.pool.query(statement);
    else await sql.query(statement);
  }
}

test('a slot that was dropped stops the capture with the way out, and never skips in silence', async () => {
  const first = start('dropped');
  await first.reached('streaming');
  await sql.query(`INSERT INTO items VALUES (1, 'a')`);
  await rig.until(topicOf('dropped'), records => records.length === 1);
  await first.stop();
  await sql.query(`INSERT INTO items VALUES (2, 'never captured')`);
  await dropSlot('dropped');
  const second = start('dropped');
  const { reason, hint } = await second.reached('failed');
  assert.match(reason!, /replication slot \w+ is gone, and with it the changes since [0-9A-F]+\/[0-9A-F]+/);
  await runHint(hint!);
  const third = start('dropped');
  await third.reached('streaming');
  await sql.query(`INSERT INTO items VALUES (3, 'c')`);
  await rig.until(topicOf('dropped'), records => records.length === 2);
  assert.deepEqual(await ids('dropped'), [1, 3]);
  await third.stop();
  await dropSlot('dropped');
});

test('a slot that was dropped while it was read, too', async () => {
  const running = start('dropped_live');
  await running.reached('streaming');
  await dropSlot('dropped_live');
  assert.match((await running.reached('failed')).reason!, /is gone/);
});

test('a slot that somebody moved on, or made again, is found out', async () => {
  const first = start('moved');
  await first.reached('streaming');
  await first.stop();
  await sql.query(`INSERT INTO items VALUES (10, 'skipped by somebody')`);
  await sql.query('SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())', [`moved_${rig.suffix}`]);
  const second = start('moved');
  const { reason, hint } = await second.reached('failed');
  assert.match(reason!, /ahead of the capture at .* changes between are missing/);
  await runHint(hint!);
  const third = start('moved');
  await third.reached('streaming');
  await third.stop();
  await dropSlot('moved');
  await sql.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [`moved_${rig.suffix}`]);
  assert.match((await start('moved').reached('failed')).reason!, /ahead of the capture/);
  await dropSlot('moved');
  await sql
    .query(`SELECT pg_create_logical_replication_slot($1, 'test_decoding')`, [`moved_${rig.suffix}`])
    .catch(() => sql.query(`SELECT pg_create_physical_replication_slot($1)`, [`moved_${rig.suffix}`]));
  assert.match((await start('moved').reached('failed')).reason!, /belongs to|another/);
  await dropSlot('moved');
});

test('a slot that was invalidated because it held back too much WAL', { timeout: 300_000 }, async () => {
  const first = start('lost');
  await first.reached('streaming');
  await first.stop();
  await sql.query(`ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`);
  await sql.query('SELECT pg_reload_conf()');
  const status = async () =>
    (
      await sql.query<{ status: string }>(
        'SELECT wal_status AS status FROM pg_replication_slots WHERE slot_name = $1',
        [`lost_${rig.suffix}`],
      )
    ).rows[0]!.status;
  for (let i = 0; (await status()) !== 'lost'; i++) {
    assert.ok(i < 50, 'the slot was never lost');
    await sql.query(`SELECT pg_logical_emit_message(false, 'filler', ''), pg_switch_wal()`);
    await sql.query('CHECKPOINT');
  }
  const second = start('lost');
  const { reason, hint } = await second.reached('failed');
  assert.match(reason!, /has been invalidated/);
  await sql.query('ALTER SYSTEM RESET max_slot_wal_keep_size');
  await sql.query('SELECT pg_reload_conf()');
  await runHint(hint!);
  const third = start('lost');
  await third.reached('streaming');
  await third.stop();
  await dropSlot('lost');
});

test('when all slots are in use, the capture says what to do', async () => {
  for (const n of [1, 2, 3]) await sql.query('SELECT pg_create_physical_replication_slot($1)', [`taken_${n}`]);
  const { reason, hint } = await start('exhausted').reached('failed');
  assert.match(reason!, /all replication slots are in use/);
  assert.match(hint!, /max_replication_slots/);
  for (const n of [1, 2, 3]) await sql.query('SELECT pg_drop_replication_slot($1)', [`taken_${n}`]);
});

test('a role without REPLICATION is told what it lacks', async () => {
  await sql.query(`CREATE ROLE poor LOGIN PASSWORD 'poor'`);
  const url = new URL(postgres.url);
  url.username = 'poor';
  url.password = 'poor';
  const { reason, hint } = await start('poor', { source: url.href }).reached('failed');
  assert.match(reason!, /role poor lacks REPLICATION/);
  assert.match(hint!, /ALTER ROLE "poor" REPLICATION/);
});

for (const size of [1, 5000]) {
  test(`transactions of ${size} rows that are prepared come once, when they are committed, or never`, async () => {
    const name = `prepared_${size}`;
    const first = start(name);
    await first.reached('streaming');
    await sql.query(`SET logical_decoding_work_mem = '64kB'`);
    const base = size * 100;
    for (const [gid, from] of [
      ['kept', base],
      ['gone', base + size],
    ] as const) {
      await sql.query(`BEGIN; INSERT INTO items SELECT i, repeat('p', 200) FROM generate_series(${from}, ${from + size - 1}) i;
        PREPARE TRANSACTION '${gid}'`);
    }
    await sql.query('INSERT INTO items VALUES ($1)', [base + 2 * size]);
    await rig.until(topicOf(name), records => records.length === 1);
    await first.stop();
    const second = start(name);
    await second.reached('streaming');
    await sql.query(`ROLLBACK PREPARED 'gone'`);
    await sql.query(`COMMIT PREPARED 'kept'`);
    await rig.until(topicOf(name), records => records.length >= 1 + size);
    await second.stop();
    const third = start(name);
    await third.reached('streaming');
    await sql.query('INSERT INTO items VALUES ($1)', [base + 2 * size + 1]);
    await rig.until(topicOf(name), records => records.length >= 2 + size);
    const kept = Array.from({ length: size }, (_, i) => base + i);
    assert.deepEqual(await ids(name), [base + 2 * size, ...kept, base + 2 * size + 1]);
    await third.stop();
    await dropSlot(name);
  });
}

test('two captures on one slot: one streams; when it ends the other takes over, and changes are in the log once', async () => {
  const first = start('shared_slot');
  await first.reached('streaming');
  // The same capture, as another process that did not notice would run it.
  const second = start('shared_slot');
  await second.reached('retrying');
  await sql.query(`INSERT INTO items VALUES (900000, 'one')`);
  await rig.until(topicOf('shared_slot'), records => records.length === 1);
  assert.equal(first.status().state, 'streaming');
  await first.stop();
  await second.reached('streaming');
  await sql.query(`INSERT INTO items VALUES (900001, 'two')`);
  await rig.until(topicOf('shared_slot'), records => records.length === 2);
  assert.deepEqual(await ids('shared_slot'), [900_000, 900_001]);
  await second.stop();
  await dropSlot('shared_slot');
});

test('restarts of PostgreSQL, fast and immediate: it comes back by itself, and holds up no shutdown', {
  timeout: 300_000,
}, async () => {
  const running = start('restarted');
  await running.reached('streaming');
  let last = 0;
  for (const immediately of [false, true, false]) {
    for (let i = 0; i < 20; i++) await sql.query('INSERT INTO items VALUES ($1)', [1_000_000 + last++]);
    await sql.end().catch(() => {});
    await postgres.stop(immediately);
    await running.reached('retrying');
    await postgres.start();
    sql = await connect();
    await running.reached('streaming');
  }
  await sql.query('INSERT INTO items VALUES ($1)', [1_000_000 + last++]);
  await rig.until(topicOf('restarted'), records => records.length >= last);
  assert.deepEqual(
    await ids('restarted'),
    Array.from({ length: last }, (_, i) => 1_000_000 + i),
  );
  await running.stop();
  await dropSlot('restarted');
});

test('an idle captured database beside a busy one holds back no WAL', { timeout: 300_000 }, async () => {
  const running = start('idle');
  await running.reached('streaming');
  await sql.query('CREATE DATABASE busy');
  const busy = await connect('busy');
  await busy.query('CREATE TABLE t (v text)');
  const retained = async (): Promise<number> => {
    const { rows } = await sql.query<{ bytes: number }>(
      `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int AS bytes FROM pg_replication_slots WHERE slot_name = $1`,
      [`idle_${rig.suffix}`],
    );
    return rows[0]!.bytes;
  };
  const deadline = Date.now() + 240_000;
  const written = 40 * 1024 * 1024;
  for (let i = 0; i < 40; i++)
    await busy.query(`INSERT INTO t SELECT repeat(md5(random()::text), 1000) FROM generate_series(1, 64)`);
  await busy.query(`SELECT pg_logical_emit_message(false, 'filler', repeat('x', ${written}))`);
  // The slot's restart follows what the background writer notes every 15 seconds, and a checkpoint too.
  while ((await retained()) > 4 * 1024 * 1024) {
    assert.ok(Date.now() < deadline, `${await retained()} bytes are held back`);
    await sql.query('CHECKPOINT');
    await new Promise(resolve => setTimeout(resolve, 500));
  }
  assert.deepEqual(running.states, ['streaming']);
  await busy.end();
  await running.stop();
});

test('a publication that is dropped stops the capture: what is changed without it would be missing in silence', async () => {
  const first = start('unpublished');
  await first.reached('streaming');
  await first.stop();
  await sql.query(`DROP PUBLICATION unpublished_${rig.suffix}`);
  const second = start('unpublished');
  const { reason, hint } = await second.reached('failed');
  assert.match(reason!, /publication \w+ is gone, and with it changes since/);
  await runHint(hint!);
  const third = start('unpublished');
  await third.reached('streaming');
  await third.finish();
});
