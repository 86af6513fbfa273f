// A standby takes over from the captured server: what it follows of slots, what it had received, and what it had not.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { type CaptureRig, openRig, type RunningCapture } from '../capture-rig.ts';
import { onServer } from '../database.ts';
import { type OwnPostgres, startPostgres } from '../own-postgres.ts';

const { rows: versions } = await onServer(client =>
  client.query<{ version: number }>(`SELECT current_setting('server_version_num')::int AS version`),
);
const skip = versions[0]!.version < 170_000 ? 'standbys follow slots from PostgreSQL 17 on' : false;

let primary: OwnPostgres;
let standby: OwnPostgres;
let rig: CaptureRig;
let onPrimary: pg.Client;
let onStandby: pg.Client;

async function connect({ url }: OwnPostgres): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {}); // its server is stopped under it
  await client.connect();
  return client;
}

before(async () => {
  if (skip) return;
  [primary, rig] = await Promise.all([startPostgres({ fsync: 'off' }), openRig()]);
  onPrimary = await connect(primary);
  await onPrimary.query(`SELECT pg_create_physical_replication_slot('standby', true)`);
  await onPrimary.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
  await onPrimary.query('CREATE TABLE quiet (id int PRIMARY KEY); CREATE TABLE other (v text)');
  await onPrimary.end();
  standby = await primary.standby({
    primary_slot_name: 'standby',
    hot_standby_feedback: 'on',
    sync_replication_slots: 'on',
  });
  [onPrimary, onStandby] = await Promise.all([connect(primary), connect(standby)]);
});

after(async () => {
  await Promise.all([onPrimary?.end(), onStandby?.end()].map(ending => ending?.catch(() => {})));
  await rig?.remove();
  await Promise.all([primary?.remove(), standby?.remove()]);
});

const start = (name: string, { url }: OwnPostgres, failover = true): RunningCapture =>
  rig.start(name, { source: url, tables: ['public.items'], format: 'plain', failover });

const ids = async (name: string): Promise<number[]> =>
  (await rig.records(`${name}.public.items`)).map(({ value }) => JSON.parse(value!).data.id as number);

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (const deadline = Date.now() + 240_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`never ${what}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

const slotOf = (name: string): string => `${name}_${rig.suffix}`;

async function isFailover(name: string): Promise<boolean> {
  const { rows } = await onPrimary.query('SELECT failover FROM pg_replication_slots WHERE slot_name = $1', [
    slotOf(name),
  ]);
  return rows[0].failover as boolean;
}

/** Resolves when the standby has the slots for good: once they have come by what it keeps WAL from. */
const synced = (names: readonly string[]): Promise<void> =>
  until(async () => {
    // An idle capture confirms in steps of a megabyte.
    await onPrimary.query(`INSERT INTO other SELECT repeat(md5(i::text), 50) FROM generate_series(1, 1000) i`);
    await onPrimary.query('SELECT pg_log_standby_snapshot()');
    const { rowCount } = await onStandby.query(
      'SELECT FROM pg_replication_slots WHERE slot_name = ANY ($1) AND synced AND NOT temporary',
      [names.map(slotOf)],
    );
    return rowCount === names.length;
  }, 'synced');

test('the slot is one that standbys follow, where it is asked for, also later', {
  skip,
  timeout: 300_000,
}, async () => {
  const without = start('later', primary, false);
  await without.reached('streaming');
  assert.equal(await isFailover('later'), false);
  await without.stop();
  const asked = start('later', primary);
  await asked.reached('streaming');
  assert.equal(await isFailover('later'), true);
  await asked.finish();
  const first = start('at_once', primary);
  await first.reached('streaming');
  assert.equal(await isFailover('at_once'), true);
  await first.finish();
});

test('after a standby has taken over, captures go on where they were, or say that changes are missing', {
  skip,
  timeout: 300_000,
}, async () => {
  const startIdle = (server: OwnPostgres) =>
    rig.start('idle', { source: server.url, tables: ['public.quiet'], failover: true, format: 'plain' });
  const captures = [start('calm', primary), start('ahead', primary), startIdle(primary)] as const;
  const [calm] = captures;
  for (const capture of captures) await capture.reached('streaming');
  await onPrimary.query(`INSERT INTO items SELECT i, 'both' FROM generate_series(1, 100) i`);
  for (const name of ['calm', 'ahead']) await rig.until(`${name}.public.items`, records => records.length === 100);
  await synced(['calm', 'ahead', 'idle']);
  await calm.stop();
  await onPrimary.query(`INSERT INTO items SELECT i, 'not captured by all' FROM generate_series(101, 200) i`);
  await rig.until('ahead.public.items', records => records.length === 200);

  // From here on the standby receives nothing.
  const [received] = (await onPrimary.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')).rows;
  const replayed = 'SELECT FROM pg_last_wal_replay_lsn() AS at WHERE at >= $1';
  await until(async () => (await onStandby.query(replayed, [received!.lsn])).rowCount === 1, 'replayed');
  await onStandby.query(`ALTER SYSTEM SET primary_conninfo = ''`);
  await onStandby.query('SELECT pg_reload_conf()');
  const fed = `SELECT FROM pg_replication_slots WHERE slot_name = 'standby' AND active`;
  await until(async () => (await onPrimary.query(fed)).rowCount === 0, 'cut off');
  await onPrimary.query(`INSERT INTO items SELECT i, 'lost' FROM generate_series(201, 300) i`);
  await rig.until('ahead.public.items', records => records.length === 300);
  await onPrimary.query(`INSERT INTO other SELECT repeat(md5(i::text), 50) FROM generate_series(1, 3000) i`);
  const passed = `SELECT FROM kafka.captures WHERE name = 'idle' AND confirmed_lsn > $1::pg_lsn + 2000000`;
  await until(async () => (await rig.database.pool.query(passed, [received!.lsn])).rowCount === 1, 'confirmed');

  for (const capture of captures) await capture.halt();
  await onPrimary.end();
  await primary.stop(true);
  await onStandby.query('SELECT pg_promote()');
  await onStandby.query(
    `INSERT INTO items SELECT i, 'new' FROM generate_series(1001, 1003) i; INSERT INTO quiet VALUES (1)`,
  );

  const goesOn = start('calm', standby);
  await rig.until('calm.public.items', records => records.length >= 203);
  const first = Array.from({ length: 200 }, (_, i) => i + 1);
  assert.deepEqual(await ids('calm'), [...first, 1001, 1002, 1003]);
  await goesOn.finish();

  const { reason, hint } = await start('ahead', standby).reached('failed');
  assert.match(reason!, /goes on from [0-9A-F]+\/[0-9A-F]+, which is before what has been captured/);
  for (const [statement] of hint!.matchAll(/(DELETE FROM kafka|SELECT pg_drop)[^;]*/g)) {
    await (statement.startsWith('DELETE') ? rig.database.pool : onStandby).query(statement);
  }
  const anew = start('ahead', standby);
  await anew.reached('streaming');
  await anew.finish();

  // What it had confirmed beyond the parting was nothing of its own; the new server's rows there are not passed over.
  const quiet = startIdle(standby);
  const [row] = await rig.until('idle.public.quiet', records => records.length === 1);
  assert.equal(JSON.parse(row!.value!).data.id, 1);
  await quiet.finish();
});

test('another cluster behind the same URL is told', { skip, timeout: 300_000 }, async () => {
  const first = start('elsewhere', standby, false); // the primary of now
  await first.reached('streaming');
  await first.stop();
  const other = await startPostgres({ fsync: 'off' });
  try {
    const client = await connect(other);
    await client.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await client.query(`CREATE PUBLICATION ${slotOf('elsewhere')} FOR TABLE items`);
    await client.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slotOf('elsewhere')]);
    await client.end();
    const { reason } = await start('elsewhere', other, false).reached('failed');
    assert.match(reason!, /is another PostgreSQL cluster \(\d+\) than the one that was captured/);
  } finally {
    await other.remove();
  }
});
