// The database that is captured, the log's own: its tables, how they are filled, slots, and how far a topic has come.
import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { CaptureScenario } from './scenarios.ts';

export type CapturedTable = 'backlog' | 'live' | 'big';

export const changesInTransaction = 10_000;
const baseSlot = 'bench_base';
const role = 'bench';
const password = 'bench';
const pollMs = 20;
/** Of a table that does not come to its end. */
const patienceMs = 900_000;

/** 128 bytes: 8 + 4 + 8 and a text of 108. */
const columns = 'id bigint PRIMARY KEY, account int NOT NULL, changed timestamptz NOT NULL, payload text NOT NULL';
const rowOf = (id: string): string =>
  `${id}, (${id} % 100000)::int, clock_timestamp(), rpad(md5((${id})::text), 108, md5((-(${id}))::text))`;

export interface Backlog {
  readonly changes: number;
  /** Tombstones included. */
  readonly records: number;
  readonly endLsn: string;
}

export class CaptureSource {
  #client: pg.Client;
  #url: URL;

  private constructor(client: pg.Client, url: URL) {
    this.#client = client;
    this.#url = url;
  }

  /** `url`: of a superuser. */
  static async open(url: string): Promise<CaptureSource> {
    return new CaptureSource(await connect(url), new URL(url));
  }

  async end(): Promise<void> {
    await this.#client.end();
  }

  /** While `restart` goes on it is not connected. */
  async across(restart: () => Promise<string>): Promise<void> {
    await this.#client.end();
    const url = await restart();
    this.#client = await connect(url);
    this.#url = new URL(url);
  }

  /** Tables, a publication for each and those asked for, and a role that may log in over TCP. */
  async make(publications: readonly (readonly [string, CapturedTable])[]): Promise<void> {
    for (const table of ['backlog', 'live', 'big'] as const) {
      await this.#run(`DROP PUBLICATION IF EXISTS bench_${table}; DROP TABLE IF EXISTS ${table};
        CREATE TABLE ${table} (${columns}); CREATE PUBLICATION bench_${table} FOR TABLE ${table};
        ALTER TABLE ${table} SET (autovacuum_enabled = off)`);
    }
    for (const [name, table] of publications) {
      await this.#run(`DROP PUBLICATION IF EXISTS ${name}; CREATE PUBLICATION ${name} FOR TABLE ${table}`);
    }
    await this.#run(`CREATE SEQUENCE IF NOT EXISTS live_ids CACHE 100`);
    await this.#run(`DO $$ BEGIN CREATE ROLE ${role} LOGIN SUPERUSER REPLICATION PASSWORD '${password}';
      EXCEPTION WHEN duplicate_object THEN NULL; END $$`);
  }

  /** For programs that take a host, a port and a password. */
  get tcp(): { host: string; port: string; database: string; user: string; password: string } {
    return { host: '127.0.0.1', port: this.#url.port, database: this.#url.pathname.slice(1), user: role, password };
  }

  /** For PostgreSQL's own programs: the socket, which is cheaper than TCP. */
  get socket(): readonly string[] {
    return ['-h', this.#url.searchParams.get('host') ?? this.#url.hostname, '-p', this.#url.port, '-U', role];
  }

  get environment(): NodeJS.ProcessEnv {
    return { ...process.env, PGPASSWORD: password };
  }

  async #run(sql: string): Promise<void> {
    await this.#client.query(sql);
  }

  async #value<T>(sql: string, parameters: readonly unknown[] = []): Promise<T> {
    const { rows } = await this.#client.query<{ value: T }>(sql, [...parameters]);
    return rows[0]!.value;
  }

  /** Writes the changes that a slot copied from the base then drains, ten thousand in each transaction. */
  async fill({ updates, deletes }: CaptureScenario, changes: number): Promise<Backlog> {
    const transactions = Math.round(changes / changesInTransaction);
    const inserts = changesInTransaction - updates - deletes;
    await this.dropSlot(baseSlot);
    await this.#run('TRUNCATE backlog');
    await this.#run(`INSERT INTO backlog SELECT ${rowOf('i')} FROM generate_series(0, ${inserts - 1}) AS i`);
    await this.createSlot(baseSlot);
    // Updates and deletes are of rows that the transaction before inserted.
    const more = [
      updates > 0
        ? `UPDATE backlog SET account = account + 1, changed = clock_timestamp()
        WHERE id >= (t - 1) * ${inserts} AND id < (t - 1) * ${inserts} + ${updates};`
        : '',
      deletes > 0
        ? `DELETE FROM backlog WHERE id >= (t - 1) * ${inserts} + ${updates}
        AND id < (t - 1) * ${inserts} + ${updates + deletes};`
        : '',
    ];
    await this.#run(`DO $$ BEGIN
      FOR t IN 1 .. ${transactions}::bigint LOOP
        INSERT INTO backlog SELECT ${rowOf('i')} FROM generate_series(t * ${inserts}, (t + 1) * ${inserts} - 1) AS i;
        ${more.join('\n')}
        COMMIT;
      END LOOP; END $$`);
    return {
      changes: transactions * changesInTransaction,
      records: transactions * (changesInTransaction + deletes),
      endLsn: await this.#value('SELECT pg_current_wal_lsn()::text AS value'),
    };
  }

  /** Nothing of what was written before is written to disk while something is measured. */
  async settle(): Promise<void> {
    await this.#run('CHECKPOINT');
  }

  async createSlot(name: string): Promise<void> {
    await this.dropSlot(name);
    await this.#client.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [name]);
  }

  /** A slot that stands where the backlog begins. */
  async copySlot(name: string): Promise<void> {
    await this.dropSlot(name);
    await this.#client.query('SELECT pg_copy_logical_replication_slot($1, $2)', [baseSlot, name]);
  }

  async dropSlot(name: string): Promise<void> {
    const deadline = Date.now() + 10_000;
    const query = `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active`;
    while ((await this.#client.query(query, [name])).rowCount! > 0 && Date.now() < deadline) await delay(pollMs);
    await this.#client.query(
      'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1',
      [name],
    );
  }

  /** Makes Millrace take a capture for one that has never begun. */
  async forget(capture: string): Promise<void> {
    await this.#client.query('DELETE FROM kafka.captures WHERE name = $1', [capture]);
  }

  /** Rows in one transaction, which is under way until `commit`. */
  async openTransaction(rows: number): Promise<{ commit(): Promise<void> }> {
    await this.#run('TRUNCATE big');
    await this.#run('BEGIN');
    await this.#run(`INSERT INTO big SELECT ${rowOf('i')} FROM generate_series(1, ${rows}) AS i`);
    return { commit: () => this.#run('COMMIT') };
  }

  /** Records in partition 0 of a topic; 0 where there is none. */
  async records(topic: string): Promise<number> {
    const sql = `SELECT coalesce((SELECT kafka.log_end(topic_id, 0) FROM kafka.topics WHERE name = $1), 0)::int8::text AS value`;
    return Number(await this.#value<string>(sql, [topic]));
  }

  /** Resolves when the topic has so many. */
  async reached(topic: string, records: number, failed: () => string | undefined = () => undefined): Promise<void> {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      const now = await this.records(topic);
      if (now >= records) return;
      const why = failed() ?? (Date.now() > deadline ? 'the time is up' : undefined);
      if (why !== undefined) throw new Error(`${topic} has ${now} of ${records} records: ${why}`);
      await delay(pollMs);
    }
  }

  /** Resolves when the slot's walsender has come to `lsn`. */
  async sent(slot: string, lsn: string): Promise<void> {
    const sql = `SELECT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
      WHERE s.slot_name = $1 AND r.sent_lsn >= $2::pg_lsn) AS value`;
    const deadline = Date.now() + patienceMs;
    while (!(await this.#value<boolean>(sql, [slot, lsn]))) {
      if (Date.now() > deadline) throw new Error(`slot ${slot} does not come to ${lsn}`);
      await delay(pollMs);
    }
  }

  async walPosition(): Promise<string> {
    return this.#value('SELECT pg_current_wal_lsn()::text AS value');
  }

  /** pgbench with one script; the transactions it has done. */
  async pgbench(script: string, options: readonly string[]): Promise<number> {
    const args = ['-n', '-M', 'prepared', '-f', '-', ...this.socket, ...options, this.tcp.database];
    const child = spawn('pgbench', args, { env: this.environment });
    let out = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (out += chunk));
    child.stdin.end(script);
    const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve));
    const done = /actually processed: (\d+)/.exec(out)?.[1];
    if (code !== 0 || done === undefined) throw new Error(`pgbench ${args.join(' ')}: exit ${code}: ${out.trim()}`);
    return Number(done);
  }

  /** Inserts at a rate, open loop. */
  async insertLive(
    { rate, perTransaction }: Pick<CaptureScenario, 'rate' | 'perTransaction'>,
    seconds: number,
  ): Promise<void> {
    const script = `INSERT INTO live SELECT ${rowOf('i')} FROM (SELECT nextval('live_ids') AS i FROM generate_series(1, ${perTransaction})) AS ids;`;
    await this.pgbench(script, ['-c', '4', '-j', '1', '-R', String(rate / perTransaction), '-T', String(seconds)]);
  }
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: 'millrace-bench' });
  client.on('error', () => {}); // a query tells; when the run is interrupted, Millrace stops its server
  await client.connect();
  return client;
}
