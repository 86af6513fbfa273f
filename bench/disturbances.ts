// What goes on in the database while growth.ts measures: each is begun, works until it is ended, and then says what it
// did. One that did nothing fails, because what was measured beside it would mean nothing.
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { type GrowingTopic, recordBytes } from './growing-topic.ts';
import { query } from './peers/database.ts';
import type { Millrace } from './peers/millrace.ts';

/** Ends it; what it did. */
export type End = () => Promise<string>;

const dropEveryMs = 1000;
/** So many of these make the log half as large. */
const dropSteps = 10;
const shrinkTimeoutMs = 60_000;

/** Keeps a twentieth less of the log every second, down to half of it; what is appended meanwhile drops more. */
export async function dropSegments(topic: GrowingTopic): Promise<End> {
  const before = topic.diskBytes();
  const tables = await topic.tables();
  const bytes = topic.records * recordBytes;
  const { ended, end } = until(async step => {
    await topic.retain(bytes * (1 - Math.min(step, dropSteps) / (2 * dropSteps)));
    await delay(dropEveryMs);
  });
  return async () => {
    end();
    await ended;
    await shrunk(topic, before);
    const left = await topic.tables();
    const dropped = tables.filter(table => !left.includes(table)).length;
    if (dropped === 0) throw new Error('no segment was dropped');
    return `${dropped} of ${tables.length} segments dropped, ${megabytes(before)} → ${megabytes(topic.diskBytes())} MB on disk`;
  };
}

async function shrunk(topic: GrowingTopic, before: number): Promise<void> {
  const deadline = Date.now() + shrinkTimeoutMs;
  while (topic.diskBytes() >= before) {
    if (Date.now() > deadline) throw new Error(`still ${megabytes(topic.diskBytes())} MB on disk`);
    await delay(dropEveryMs);
  }
}

/** VACUUM of every table of the log and of the catalogue again and again, every page, at autovacuum's pace. */
export async function vacuum(millrace: Millrace, topic: GrowingTopic): Promise<End> {
  const client = await connect(millrace);
  await client.query(`SELECT set_config('vacuum_cost_delay', current_setting('autovacuum_vacuum_cost_delay'), false)`);
  const others = await client.query<{ name: string }>(
    `SELECT oid::regclass AS name FROM pg_class
     WHERE relnamespace = 'kafka'::regnamespace AND relkind = 'r' AND relname !~ '^segment_'`,
  );
  let vacuumed = 0;
  let queue: string[] = [];
  const { ended, end } = until(async () => {
    if (queue.length === 0) queue = [...(await topic.tables()), ...others.rows.map(({ name }) => name)];
    await client.query(`VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) ${queue.shift()}`);
    vacuumed++;
  });
  return async () => {
    end();
    await ended.finally(() => client.end());
    if (vacuumed === 0) throw new Error('not one VACUUM was through');
    return `${vacuumed} tables vacuumed, each page frozen`;
  };
}

/** A transaction with an old snapshot: nothing that became superfluous since can be cleaned away. */
export async function holdSnapshot(millrace: Millrace): Promise<End> {
  const client = await connect(millrace);
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid FROM kafka.cluster');
  return async () => {
    const [holder] = await query<{ passed: number | null }>(
      millrace.databaseUrl!,
      `SELECT age(backend_xmin) AS passed FROM pg_stat_activity WHERE pid = ${rows[0]!.pid}`,
    );
    await client.query('COMMIT');
    await client.end();
    if (!holder?.passed) throw new Error('no snapshot was held');
    return `${holder.passed} transactions passed`;
  };
}

/** Does it until told to end. */
function until(act: (step: number) => Promise<void>): { readonly ended: Promise<void>; end(): void } {
  let again = true;
  const ended = (async () => {
    for (let step = 1; again; step++) await act(step);
  })();
  ended.catch(() => {}); // whoever ends it is told
  return {
    ended,
    end: () => {
      again = false;
    },
  };
}

async function connect(millrace: Millrace): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: millrace.databaseUrl!, application_name: 'millrace-bench' });
  await client.connect();
  return client;
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0);
