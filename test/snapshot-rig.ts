// A Millrace of its own with one capture, `shop`, in the plain format, for tests of snapshots from outside: what its
// topics hold, folded as a consumer does that keeps the newest value of each key.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { parseLsn } from '../src/postgres/lsn.ts';
import { createDatabase, type TestDatabase } from './database.ts';
import { Millrace } from './millrace.ts';
import { headerOf, readTopic, textOf } from './read-topic.ts';

export interface SnapshotState {
  readonly table: string;
  readonly state: string;
  readonly rows: number;
  readonly bytes: number;
  readonly estimatedRows: number | null;
  readonly pieces: number;
  readonly piecesDone: number;
}

export interface ShopStatus {
  readonly state: string;
  readonly reason?: string;
  readonly tables: readonly string[];
  readonly snapshots: SnapshotState[];
}

export interface Event {
  readonly partition: number;
  readonly key: string | null;
  readonly id: string;
  readonly op: string;
  readonly data: Record<string, unknown>;
  readonly old?: Record<string, unknown>;
}

const deadlineMs = 240_000;
/** Ends those that a test which failed has left writing. */
const writers = new Set<() => void>();

export class SnapshotRig {
  readonly database: TestDatabase;
  readonly slot = `millrace_test_${Math.random().toString(36).slice(2, 10)}`;
  readonly #directory = mkdtempSync(join(tmpdir(), 'millrace-snapshot-'));
  readonly #source: string | undefined;
  #millrace: Millrace | undefined;

  private constructor(database: TestDatabase, source: string | undefined) {
    this.database = database;
    this.#source = source;
  }

  /** `source`: another database than the log's. */
  static async open(source?: string): Promise<SnapshotRig> {
    return new SnapshotRig(await createDatabase(), source);
  }

  get millrace(): Millrace {
    return this.#millrace!;
  }

  get sourceUrl(): string {
    return this.#source ?? this.database.url;
  }

  async start(settings: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const own = { tables: ['public.*'], format: 'plain', partitions: 3, slot: this.slot };
    const shop = { ...own, ...(this.#source === undefined ? {} : { source: 'env:SHOP' }), ...settings };
    writeFileSync(join(this.#directory, 'millrace.yaml'), JSON.stringify({ capture: { shop } }));
    const flags = [
      `--database-url=${this.database.url}`,
      `--config=${this.#directory}/millrace.yaml`,
      `--capture-spool-dir=${this.#directory}/spool`,
    ];
    this.#millrace = new Millrace(flags, { env: { SHOP: this.sourceUrl } });
    await this.#millrace.ready();
  }

  async status(): Promise<ShopStatus> {
    return ((await (await fetch(`${this.millrace.http}/api/captures`)).json()) as ShopStatus[])[0]!;
  }

  async until<T>(read: () => Promise<T>, condition: (value: T) => boolean, what: string): Promise<T> {
    for (const deadline = Date.now() + deadlineMs; ; ) {
      const value = await read();
      if (condition(value)) return value;
      if (Date.now() > deadline) {
        throw new Error(`never ${what}: ${JSON.stringify(value)}\n${this.#millrace?.stderr.slice(-4000)}`);
      }
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  }

  complete(): Promise<ShopStatus> {
    const isDone = ({ snapshots }: ShopStatus) =>
      snapshots.length > 0 && snapshots.every(({ state }) => state === 'done');
    return this.until(() => this.status(), isDone, 'complete');
  }

  /** Until a third or so of a table has been read. */
  halfWay(table: string, rows: number): Promise<ShopStatus> {
    const isThere = ({ snapshots }: ShopStatus) => snapshots.some(one => one.table === table && one.rows >= rows);
    return this.until(() => this.status(), isThere, `at ${rows} rows of ${table}`);
  }

  async onSource<T extends pg.QueryResultRow = pg.QueryResultRow>(
    query: string,
    values: unknown[] = [],
  ): Promise<pg.QueryResult<T>> {
    const client = new pg.Client({ connectionString: this.sourceUrl });
    await client.connect();
    try {
      return await client.query<T>(query, values);
    } finally {
      await client.end();
    }
  }

  /** When something that has just been written has come out of the stream, so has everything before it. */
  async caughtUp(): Promise<void> {
    const { rows } = await this.onSource<{ lsn: string }>(
      `SELECT pg_current_wal_lsn()::text AS lsn, pg_logical_emit_message(true, 'test', 'end')`,
    );
    const written = parseLsn(rows[0]!.lsn);
    const read = async () =>
      (await readTopic(this.database.pool, 'shop.message')).some(
        record => parseLsn(headerOf(record, 'commit_lsn')!) >= written,
      );
    await this.until(read, found => found, 'caught up');
  }

  /** Of a table's topic, by partition and offset. */
  async events(table: string): Promise<Event[]> {
    const events: Event[] = [];
    for (const record of await readTopic(this.database.pool, `shop.public.${table}`)) {
      if (record.value === null) continue;
      const { op, data, old } = JSON.parse(record.value.toString()) as Event;
      const id = `${headerOf(record, 'commit_lsn')}.${headerOf(record, 'ordinal')}`;
      const key = textOf(record.key);
      events.push({ partition: record.partition, key, op, data, id, ...(old === undefined ? {} : { old }) });
    }
    return events;
  }

  /** The topic's fold is the table, and no record is there twice. Returns the topic. */
  async assertFolds(table: string): Promise<Event[]> {
    const read = await this.events(table);
    const identities = read.map(({ partition, op, id }) => `${op === 't' ? partition : ''}${op}${id}`);
    assert.equal(new Set(identities).size, identities.length, `a record of ${table} is there twice`);
    const folded = read.some(({ key }) => key !== null) ? fold(read) : foldRows(read);
    await this.#assertRows(table, folded);
    return read;
  }

  async #assertRows(table: string, folded: Iterable<Record<string, unknown>>): Promise<void> {
    const { rows } = await this.onSource<{ row: Record<string, unknown> }>(`SELECT to_jsonb(t) AS row FROM ${table} t`);
    const missing = new Map<string, number>();
    for (const { row } of rows) missing.set(text(row), (missing.get(text(row)) ?? 0) + 1);
    const surplus: string[] = [];
    for (const row of folded) {
      const left = missing.get(text(row)) ?? 0;
      if (left === 0) surplus.push(text(row));
      else if (left === 1) missing.delete(text(row));
      else missing.set(text(row), left - 1);
    }
    const few = (all: Iterable<string>) => [...all].slice(0, 5);
    assert.deepEqual(
      { missing: missing.size, surplus: surplus.length, first: [few(missing.keys()), few(surplus)] },
      { missing: 0, surplus: 0, first: [[], []] },
      `what is folded of ${table} is not the table`,
    );
  }

  async remove(): Promise<void> {
    for (const end of writers) end();
    await this.#millrace?.stop('SIGKILL');
    await this.database.drop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

const text = (row: Record<string, unknown>): string => JSON.stringify(Object.entries(row).toSorted());

/** What a consumer has that keeps the newest value of each key; values that an update left out are those from before. */
function fold(read: readonly Event[]): Iterable<Record<string, unknown>> {
  const rows = new Map<string, Record<string, unknown>>();
  const partitionOf = new Map<string, number>();
  for (const { partition, key, op, data } of read) {
    if (op === 't') {
      for (const [known, at] of partitionOf) if (at === partition) rows.delete(known);
    } else if (op === 'd') {
      rows.delete(key!);
    } else {
      rows.set(key!, op === 'u' ? { ...rows.get(key!), ...data } : data);
      partitionOf.set(key!, partition);
    }
  }
  return rows.values();
}

/** Of records without a key: a row that goes takes one that is equal, if there is any. */
function foldRows(read: readonly Event[]): Record<string, unknown>[] {
  const counts = new Map<string, number>();
  const add = (row: Record<string, unknown>, count: number) =>
    counts.set(text(row), Math.max(0, (counts.get(text(row)) ?? 0) + count));
  for (const { partition, op, data, old } of read) {
    if (partition > 0) continue; // truncates alone: what has no key is in the first
    if (op === 't') counts.clear();
    else if (op === 'd') add(data, -1);
    else {
      if (op === 'u' && old !== undefined) add(old, -1);
      add(data, 1);
    }
  }
  return [...counts].flatMap(([row, count]) =>
    Array.from({ length: count }, () => Object.fromEntries(JSON.parse(row))),
  );
}

/**
 * Calls `write` again and again on a connection of its own, until it is told to end; a lost connection is made again. Some
 * 50 times a second at most: what there is to capture, and to read for the test, grows with the time that a snapshot takes.
 */
export function writing(
  url: string,
  write: (client: pg.Client, n: number) => Promise<unknown>,
): { end(): Promise<number> } {
  let goesOn = true;
  const run = async (): Promise<number> => {
    let n = 0;
    while (goesOn) {
      const client = new pg.Client({ connectionString: url });
      client.on('error', () => {}); // its query fails
      try {
        await client.connect();
        for (; goesOn; n++) {
          await write(client, n);
          await new Promise(resolve => setTimeout(resolve, 20));
        }
        await client.end();
      } catch (error) {
        if ((error as { code?: string }).code?.match(/^(2|4|XX)/)) throw error;
        await client.end().catch(() => {});
        await new Promise(resolve => setTimeout(resolve, 50));
      }
    }
    return n;
  };
  const stop = () => {
    goesOn = false;
  };
  writers.add(stop);
  const running = run().finally(() => writers.delete(stop));
  running.catch(() => {}); // told by end()
  return {
    end() {
      stop();
      return running;
    },
  };
}
