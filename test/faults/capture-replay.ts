// pgbench's tables, captured with what they hold already and replayed into a second database by a Kafka client, while
// brokers, walsenders and sessions are killed: in the end both databases have the same rows.
//
// pgbench_history has no primary key. It gets REPLICA IDENTITY FULL, as Millrace asks for it, and the consumer only adds
// its rows: each must come once, as read or as created, because nothing would fold two of them into one.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from '../../src/postgres/pool.ts';
import { createDatabase, type TestDatabase } from '../database.ts';
import { writing } from '../snapshot-rig.ts';
import { type Random, randomFrom } from './random.ts';
import { Replayer, type ReplayTable } from './replayer.ts';
import { TestServer } from './server.ts';

export interface ReplayOptions {
  readonly seed: number;
  /** Of all clients together. */
  readonly transactions: number;
  readonly clients: number;
  /** Rows of pgbench_accounts: pgbench has 100,000 for each of its scale. */
  readonly accounts: number;
  /** The program; without it the same transactions come from here. */
  readonly pgbench?: string | undefined;
  /** ms from one fault to the next, at most. */
  readonly calmMs: number;
  readonly say?: (line: string) => void;
}

export interface Replayed {
  readonly faults: number;
  readonly events: number;
}

const tables: readonly ReplayTable[] = [
  { name: 'pgbench_accounts', key: 'aid' },
  { name: 'pgbench_branches', key: 'bid' },
  { name: 'pgbench_tellers', key: 'tid' },
  { name: 'pgbench_history', key: undefined },
];
const accountsPerBranch = 100_000;
const tellersPerBranch = 10;
const deadlineMs = 300_000;

const schema = `
  CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
  CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
  CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
  CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))`;

/** Throws where the databases differ, and names the table. */
export async function replayCapture(options: ReplayOptions): Promise<Replayed> {
  const { seed, calmMs, say = () => {} } = options;
  const random = randomFrom(seed);
  const log = await createDatabase();
  const source = await createDatabase({ empty: true });
  const target = await createDatabase({ empty: true });
  const slot = `replay_${Math.random().toString(36).slice(2, 10)}`;
  const directory = mkdtempSync(join(tmpdir(), 'millrace-replay-'));
  let server: TestServer | undefined;
  let replayer: Replayer | undefined;
  const abandoned = new AbortController();
  try {
    await fill(source, options);
    await target.pool.query(schema);
    const work = transact(source, options, random, abandoned.signal);
    work.catch(() => {}); // awaited below
    // The server under test may want a password, which only a reference may hold.
    const secret = join(directory, 'source');
    writeFileSync(secret, source.url);
    writeFileSync(
      join(directory, 'millrace.yaml'),
      JSON.stringify({ capture: { bank: bankOf(secret, slot, options) } }),
    );
    server = await TestServer.start({
      databaseUrl: log.url,
      settings: {
        config: join(directory, 'millrace.yaml'),
        'capture.spool.dir': join(directory, 'spool'),
        'log.level': 'warn',
      },
    });
    await until(
      async () => (await topicsOf(log.pool)) === tables.length,
      () => `not all topics were made: ${server!.log}`,
    );
    replayer = await Replayer.start(server.address, 'bank.public.', tables, target.url);
    let working = true;
    const ended = work.then(() => {
      working = false;
    });
    let faults = 0;
    for (;;) {
      await Promise.race([ended, delay(random.below(calmMs))]);
      // Where all is written before two could be struck, what has been written is still being captured.
      if (!working && faults >= 2) break;
      const fault = await strike(server, source.pool, slot, random);
      say(`fault ${++faults}: ${fault}; ${replayer.events} events applied`);
    }
    await work;
    await caughtUp(log.pool, source.pool, replayer, () => server!.log);
    for (const { name } of tables) {
      const [there, here] = [await checksum(source.pool, name), await checksum(target.pool, name)];
      say(`${name}: ${there} captured, ${here} replayed`);
      assert.equal(here, there, `${name} is not what was replayed of it (seed ${seed})`);
    }
    return { faults, events: replayer.events };
  } finally {
    abandoned.abort();
    await replayer?.stop();
    await server?.remove();
    for (const database of [log, source, target]) await database.drop();
    rmSync(directory, { recursive: true, force: true });
  }
}

const bankOf = (secret: string, slot: string, { accounts }: ReplayOptions) => ({
  ...{ source: `file:${secret}`, tables: ['public.pgbench_*'], format: 'plain', partitions: 4, slot },
  // Some seconds, so that it is killed in the middle.
  ...{ snapshotReaders: 4, snapshotRowsPerSecond: accounts / 8 },
});

async function fill({ url, pool }: TestDatabase, { pgbench, accounts, transactions }: ReplayOptions): Promise<void> {
  if (pgbench !== undefined) {
    await run(
      pgbench,
      ['-i', '-q', '-s', String(Math.ceil(accounts / accountsPerBranch)), url],
      new AbortController().signal,
    );
  } else {
    await pool.query(schema);
    await pool.query(`INSERT INTO pgbench_branches VALUES (1, 0)`);
    await pool.query(`INSERT INTO pgbench_tellers SELECT i, 1, 0 FROM generate_series(1, ${tellersPerBranch}) i`);
    await pool.query(`INSERT INTO pgbench_accounts SELECT i, 1, 0, '' FROM generate_series(1, ${accounts}) i`);
  }
  // A history that is there already.
  await pool.query(
    `INSERT INTO pgbench_history SELECT 1 + i % 10, 1, 1 + i % 1000, i, '2026-01-01'::timestamp + i * interval '1 ms'
     FROM generate_series(1, ${Math.min(accounts, 10 * transactions)}) i`,
  );
  await pool.query('ALTER TABLE pgbench_history REPLICA IDENTITY FULL');
}

/** Resolves when all transactions have been made. */
async function transact(
  { url }: TestDatabase,
  { pgbench, transactions, clients, accounts }: ReplayOptions,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  if (pgbench !== undefined) {
    const each = String(Math.ceil(transactions / clients));
    await run(pgbench, ['-n', '-c', String(clients), '-j', '1', '-t', each, url], signal);
    return;
  }
  let left = transactions;
  let enough = (): void => {};
  const all = new Promise<void>(resolve => {
    enough = resolve;
  });
  signal.addEventListener('abort', enough);
  const writers = Array.from({ length: clients }, () =>
    writing(url, async client => {
      if (--left === 0) enough();
      if (left < 0) return delay(1);
      const [aid, tid, delta] = [
        1 + random.below(accounts),
        1 + random.below(tellersPerBranch),
        random.below(10_000) - 5000,
      ];
      await client.query('BEGIN');
      await client.query('UPDATE pgbench_accounts SET abalance = abalance + $2 WHERE aid = $1', [aid, delta]);
      await client.query('SELECT abalance FROM pgbench_accounts WHERE aid = $1', [aid]);
      await client.query('UPDATE pgbench_tellers SET tbalance = tbalance + $2 WHERE tid = $1', [tid, delta]);
      await client.query('UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = 1', [delta]);
      await client.query('INSERT INTO pgbench_history VALUES ($1, 1, $2, $3, clock_timestamp())', [tid, aid, delta]);
      return client.query('COMMIT');
    }),
  );
  await all;
  for (const writer of writers) await writer.end();
}

const faults = ['broker', 'broker', 'walsender', 'readers', 'stop'] as const;

async function strike(server: TestServer, source: Pool, slot: string, random: Random): Promise<string> {
  const fault = random.pick(faults);
  if (fault === 'broker' || fault === 'stop') {
    if (fault === 'broker') await server.killBroker();
    else await server.stop();
    await server.start();
  } else if (fault === 'walsender') {
    await source.query('SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1', [
      slot,
    ]);
  } else {
    await source.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE application_name = 'millrace snapshot' AND datname = current_database()`,
    );
  }
  return fault;
}

async function caughtUp(log: Pool, source: Pool, replayer: Replayer, said: () => string): Promise<void> {
  const { rows } = await source.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
  await source.query('UPDATE pgbench_branches SET bbalance = bbalance WHERE bid = 1');
  const captured = `SELECT FROM kafka.captures WHERE name = 'bank' AND confirmed_lsn > $1::pg_lsn
    AND NOT EXISTS (SELECT FROM kafka.capture_snapshots WHERE NOT done)`;
  await until(
    async () => (await log.query(captured, [rows[0]!.lsn])).rowCount === 1,
    () => `never captured: ${said()}`,
  );
  const ends = await log.query<{ name: string; partition: number; end: bigint }>(
    `SELECT topic AS name, partition, high_watermark AS end FROM kafka.partition_offsets WHERE topic LIKE 'bank.public.%'`,
  );
  await until(
    async () => {
      const applied = await replayer.applied();
      return ends.rows.every(({ name, partition, end }) => end === 0n || applied.get(`${name}-${partition}`) === end);
    },
    () => `never replayed: ${said()}`,
  );
}

const topicsOf = async (log: Pool): Promise<number> =>
  (await log.query(`SELECT FROM kafka.topics WHERE name LIKE 'bank.public.%'`)).rowCount!;

/** Rows, and a sum that each of them changes. */
async function checksum(pool: Pool, table: string): Promise<string> {
  const { rows } = await pool.query<{ sum: string }>(
    `SELECT count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) AS sum FROM ${table} t`,
  );
  return rows[0]!.sum;
}

async function until(condition: () => Promise<boolean>, what: () => string): Promise<void> {
  for (const deadline = Date.now() + deadlineMs; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(what());
    await delay(50);
  }
}

async function run(program: string, parameters: readonly string[], signal: AbortSignal): Promise<void> {
  const child = spawn(program, parameters, { stdio: ['ignore', 'ignore', 'pipe'], signal });
  let said = '';
  child.stderr.on('data', chunk => {
    said += chunk;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${said}`);
}
