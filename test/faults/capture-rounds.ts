// pgbench's transactions while brokers, walsenders and writers are killed, a remote target and PostgreSQL itself where they
// are the drill's own; then what was captured is held against the tables.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { parseLsn } from '../../src/postgres/lsn.ts';
import type { TestDatabase } from '../database.ts';
import { Millrace } from '../millrace.ts';
import type { RemoteRecord } from '../read-remote.ts';
import { headerOf, readTopic, textOf } from '../read-topic.ts';
import { type Random, randomFrom } from './random.ts';

export interface Rounds {
  readonly database: TestDatabase;
  readonly seed: number;
  readonly rounds: number;
  readonly clients: number;
  readonly say?: (line: string) => void;
  /** A remote cluster that is captured into, instead of the log. */
  readonly target?: RoundsTarget;
  /** Has the database's server crash, and starts it again. */
  readonly strikePostgres?: () => Promise<void>;
}

export interface RoundsTarget {
  readonly bootstrap: string;
  /** Kills it, and starts it again. */
  strike(): Promise<void>;
  /** Of a topic, by partition and offset. */
  read(topic: string): Promise<readonly RemoteRecord[]>;
}

const accounts = 2000;
/** By table, its key's columns; pgbench_history has none. */
const tables = { pgbench_accounts: 'aid', pgbench_tellers: 'tid', pgbench_branches: 'bid', pgbench_history: undefined };
/** What the names of both slots begin with. */
const slot = `rounds_${Math.random().toString(36).slice(2, 10)}`;
const capture = `capture:
  bank:
    tables: [public.pgbench_*]
    format: plain
    snapshot: never
    partitions: 3
    slot: ${slot}
  ledger:
    tables: [public.pgbench_*]
    transactionMetadata: true
    snapshot: never
    partitions: 3
    slot: ${slot}_ledger
`;
/** What a table without a key holds may be read twice (docs/capture.md), so a snapshot is of the others. */
const intoTarget = (bootstrap: string) => `capture:
  bank:
    tables: [public.pgbench_*]
    exclude: [public.pgbench_history]
    format: plain
    partitions: 3
    slot: ${slot}
    target: {bootstrap: '${bootstrap}'}
`;

const setup = `
  CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
  CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
  CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
  CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
  ALTER TABLE pgbench_history REPLICA IDENTITY FULL`;

/** Returns how many changes there were. Throws when what was captured is not what was committed. */
export async function captureRounds(options: Rounds): Promise<number> {
  const { database, seed, rounds, clients, say = () => {}, target, strikePostgres } = options;
  const random = randomFrom(seed);
  const directory = mkdtempSync(join(tmpdir(), 'millrace-rounds-'));
  const config = join(directory, 'millrace.yaml');
  writeFileSync(config, target ? intoTarget(target.bootstrap) : capture);
  let millrace: Millrace;
  const start = async (): Promise<void> => {
    for (let tries = 1; ; tries++) {
      millrace = new Millrace([
        `--database-url=${database.url}`,
        `--config=${config}`,
        `--capture-spool-dir=${directory}/spool`,
        '--log-level=warn',
      ]);
      try {
        await millrace.ready();
        return;
      } catch (error) {
        // A server that has crashed may take longer to let anybody in than Millrace waits; who runs it starts it again.
        if (tries === 5 || !millrace.stderr.includes('cannot reach the database')) throw error;
      }
    }
  };
  await database.pool.query(setup);
  if (target)
    await database.pool.query(`INSERT INTO pgbench_accounts SELECT i, 1, 0, '' FROM generate_series(0, 1999) i`);
  await start();
  try {
    await until(async () => (await slots(database)) === (target ? 1 : 2), 'the slots were never made');
    let writing = true;
    const working = Array.from({ length: clients }, (_, i) =>
      work(database.url, randomFrom(seed + i + 1), () => writing, strikePostgres !== undefined),
    );
    for (let round = 0; round < rounds; round++) {
      await new Promise(resolve => setTimeout(resolve, 50 + random.below(700))); // when to kill: nothing is waited for
      const fault = random.pick([
        ...(['kill', 'kill', 'walsender', 'writer', 'stop'] as const),
        ...(target ? (['target', 'target'] as const) : []),
        ...(strikePostgres ? (['postgres'] as const) : []),
      ]);
      say(`round ${round}: ${fault}`);
      if (fault === 'target') {
        await target!.strike();
      } else if (fault === 'postgres') {
        await strikePostgres!();
      } else if (fault === 'kill' || fault === 'stop') {
        await millrace!.stop(fault === 'kill' ? 'SIGKILL' : 'SIGTERM');
        await start();
      } else {
        await database.pool.query(
          fault === 'walsender'
            ? `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE starts_with(slot_name, '${slot}') AND active`
            : `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'millrace writer'`,
        );
      }
    }
    writing = false;
    await Promise.all(working);
    return await check(options, () => millrace!.stderr);
  } finally {
    await millrace!.stop('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }
}

const slots = async (database: TestDatabase): Promise<number> =>
  (
    await database.pool.query(
      `SELECT FROM pg_replication_slots WHERE starts_with(slot_name, $1) AND confirmed_flush_lsn IS NOT NULL`,
      [slot],
    )
  ).rowCount!;

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (const deadline = Date.now() + 240_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(what);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

/** pgbench's own transaction, and now and then an account that is closed, opened or given another number. */
async function work(url: string, random: Random, goOn: () => boolean, mayCrash: boolean): Promise<void> {
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {}); // its next query fails
    await client.connect();
    return client;
  };
  const connected = async (): Promise<pg.Client> => {
    let client: pg.Client | undefined;
    await until(async () => {
      client = await connect().catch(() => undefined);
      return client !== undefined;
    }, 'PostgreSQL never came back');
    return client!;
  };
  let client = await connected();
  while (goOn()) {
    const [aid, tid, delta] = [random.below(accounts), random.below(10), random.below(10_000) - 5000];
    try {
      await client.query('BEGIN');
      await client.query(
        `INSERT INTO pgbench_accounts VALUES ($1, 1, $2, '') ON CONFLICT (aid) DO UPDATE SET abalance = pgbench_accounts.abalance + $2`,
        [aid, delta],
      );
      await client.query(
        `INSERT INTO pgbench_tellers VALUES ($1, 1, $2, NULL) ON CONFLICT (tid) DO UPDATE SET tbalance = pgbench_tellers.tbalance + $2`,
        [tid, delta],
      );
      await client.query(
        `INSERT INTO pgbench_branches VALUES (1, $1, NULL) ON CONFLICT (bid) DO UPDATE SET bbalance = pgbench_branches.bbalance + $1`,
        [delta],
      );
      await client.query('INSERT INTO pgbench_history VALUES ($1, 1, $2, $3, now())', [tid, aid, delta]);
      if (random.below(20) === 0)
        await client.query('DELETE FROM pgbench_accounts WHERE aid = $1', [random.below(accounts)]);
      if (random.below(30) === 0) {
        await client.query('UPDATE pgbench_accounts SET aid = $2 WHERE aid = $1', [aid, accounts + random.below(1e9)]);
      }
      if (random.below(200) === 0) {
        await client.query(`UPDATE pgbench_accounts SET filler = 'many' WHERE aid % 2 = 0`);
      }
      await client.query(random.below(15) === 0 ? 'ROLLBACK' : 'COMMIT');
    } catch (error) {
      // A deadlock, or two that gave accounts the same number.
      if (/^(40P01|23505)$/.test((error as { code?: string }).code ?? '')) {
        await client.query('ROLLBACK').catch(() => {}); // the next query tells of a connection that is lost
        continue;
      }
      if (!mayCrash) throw error;
      // Whether it was committed, the tables tell.
      await client.end().catch(() => {});
      client = await connected();
    }
  }
  await client.end();
}

interface Stored {
  readonly partition: number;
  readonly commit: bigint;
  readonly ordinal: bigint;
  readonly value: string | null;
}

const readLog = async (pool: TestDatabase['pool'], topic: string): Promise<Stored[]> =>
  (await readTopic(pool, topic)).map(record => ({
    partition: record.partition,
    commit: parseLsn(headerOf(record, 'commit_lsn')!),
    ordinal: BigInt(headerOf(record, 'ordinal')!),
    value: textOf(record.value),
  }));

const stored = ({ partition, value, headers }: RemoteRecord): Stored => ({
  partition,
  value,
  commit: parseLsn(headers.commit_lsn!),
  ordinal: BigInt(headers.ordinal!),
});

async function check({ database: { pool }, target }: Rounds, log: () => string): Promise<number> {
  // Everything before this is in the log once the capture has confirmed it.
  const { rows: marks } = await pool.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
  await pool.query('INSERT INTO pgbench_branches VALUES (2, 0, NULL)');
  const reached = async () =>
    (await pool.query(`SELECT FROM kafka.captures WHERE confirmed_lsn > $1::pg_lsn`, [marks[0]!.lsn])).rowCount ===
    (target ? 1 : 2);
  await until(reached, `the capture never caught up: ${log()}`);
  let changes = 0;
  for (const [table, key] of Object.entries(tables)) {
    if (target && key === undefined) continue;
    const topic = `bank.public.${table}`;
    const rows = target ? (await target.read(topic)).map(stored) : await readLog(pool, topic);
    const folded = new Map<string, object>();
    const seen = new Set<string>();
    const last = new Map<number, Stored>();
    for (const row of rows) {
      const before = last.get(row.partition);
      last.set(row.partition, row);
      const inOrder =
        !before || row.commit > before.commit || (row.commit === before.commit && row.ordinal >= before.ordinal);
      assert.ok(inOrder, `${table}: ${row.commit}.${row.ordinal} is behind ${before?.commit}.${before?.ordinal}`);
      if (row.value === null) continue;
      const { op, data } = JSON.parse(row.value) as { op: string; data: Record<string, unknown> };
      const identity = `${row.commit}.${row.ordinal} ${op}`;
      assert.ok(!seen.has(identity), `${table}: ${identity} is there twice`);
      seen.add(identity);
      const name = key === undefined ? identity : String(data[key]);
      if (op === 'd') folded.delete(name);
      else folded.set(name, data);
    }
    const { rows: source } = await pool.query<{ row: object }>(`SELECT to_jsonb(t) AS row FROM public.${table} t`);
    const texts = (all: readonly object[]) => all.map(row => JSON.stringify(Object.entries(row).toSorted())).toSorted();
    assert.deepEqual(
      texts([...folded.values()]),
      texts(source.map(({ row }) => row)),
      `${table} is not what was captured`,
    );
    changes += seen.size;
  }
  if (!target) await checkTransactions(pool);
  return changes;
}

interface Boundary {
  readonly status: 'BEGIN' | 'END';
  readonly id: string;
  readonly event_count: number | null;
  readonly data_collections: readonly { readonly data_collection: string; readonly event_count: number }[] | null;
}

interface Placed {
  readonly transaction: { readonly id: string; readonly total_order: number; readonly data_collection_order: number };
}

const xidOf = (id: string): string => id.slice(0, id.indexOf(':'));

/** Each transaction has begun and ended once, with as many events as there are, in the places that they say. */
async function checkTransactions(pool: TestDatabase['pool']): Promise<void> {
  const read = async <T>(topic: string): Promise<T[]> => {
    const read = await readTopic(pool, topic);
    return read.flatMap(({ value }) => (value === null ? [] : [JSON.parse(value.toString()) as T]));
  };
  const counted = new Map<string, Map<string, number>>();
  let open: string | undefined;
  for (const { status, id, data_collections } of await read<Boundary>('ledger.transaction')) {
    const xid = xidOf(id);
    assert.equal(open, status === 'BEGIN' ? undefined : xid, `${status} of ${id}`);
    open = status === 'BEGIN' ? xid : undefined;
    if (status === 'BEGIN') continue;
    assert.ok(!counted.has(xid), `transaction ${xid} is there twice`);
    counted.set(xid, new Map(data_collections!.map(each => [each.data_collection, each.event_count])));
  }
  const places = new Map<string, number[]>();
  for (const table of Object.keys(tables)) {
    const orders = new Map<string, number[]>();
    for (const { transaction } of await read<Placed>(`ledger.public.${table}`)) {
      const xid = xidOf(transaction.id);
      for (const [map, order] of [
        [orders, transaction.data_collection_order],
        [places, transaction.total_order],
      ] as const) {
        const known = map.get(xid);
        if (known) known.push(order);
        else map.set(xid, [order]);
      }
    }
    for (const [xid, found] of orders)
      assertCounts(found, counted.get(xid)?.get(`public.${table}`), `${table} in ${xid}`);
  }
  for (const [xid, tables] of counted) {
    const total = [...tables.values()].reduce((sum, count) => sum + count, 0);
    assertCounts(places.get(xid) ?? [], total, `transaction ${xid}`);
  }
}

/** 1 to `count`, each once. */
function assertCounts(orders: readonly number[], count: number | undefined, what: string): void {
  const expected = Array.from({ length: count ?? 0 }, (_, i) => i + 1);
  assert.deepEqual(
    orders.toSorted((a, b) => a - b),
    expected,
    what,
  );
}
