// node --import tsx bench/layout.ts --database-url URL [--topics 1000] [--partitions 10]
// Measures the layouts of layouts.ts side by side, each in a database of its own on that server, and prints a table.
// The URL is a superuser's. Memory is the backend's anonymous memory where the server runs on this machine.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { CopyEncoder, type CopyPayload } from '../src/postgres/copy.ts';
import { openPool } from '../src/postgres/pool.ts';
import { Session } from '../src/postgres/session.ts';
import { type Layout, type Leaf, partitioned, setTopicCount, shared, standalone } from './layouts.ts';

const { values } = parseArgs({
  options: {
    'database-url': { type: 'string' },
    topics: { type: 'string', default: '1000' },
    partitions: { type: 'string', default: '10' },
    seconds: { type: 'string', default: '4' },
    layouts: { type: 'string', default: 'A,B,C' },
  },
});
if (!values['database-url']) throw new Error('--database-url is missing: a superuser URL of a PostgreSQL 14 or newer');
const server = values['database-url'];
const topicCount = Number(values.topics);
const partitionCount = Number(values.partitions);
const seconds = Number(values.seconds);
const batchBytes = 7168;
const topics = Array.from({ length: topicCount }, (_, i) => i + 1);
setTopicCount(topicCount);

const results = new Map<string, string[]>();
let column = 0;
function note(measure: string, value: string): void {
  const row = results.get(measure) ?? [];
  row[column] = value;
  results.set(measure, row);
  process.stderr.write(`${measure}: ${value}\n`);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

const ms = (value: number): string => (value < 100 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`);
const each = (value: number): string => `${(value / 1000).toFixed(1)} s, ${ms(value / topicCount)} each`;

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {}); // its database is dropped when a measurement has failed
  await client.connect();
  return client;
}

let offset = 0n;
const microsecondsOfDay = 86_400_000_000n;
/** timestamptz, binary. */
const now = (): bigint => BigInt(Date.now() - Date.UTC(2000, 0, 1)) * 1000n;

/** Rows of random bytes, as of today or of another day. */
function payload({ topicId }: Leaf, rows: number, bytes: Buffer, day = 0n): CopyPayload {
  const copy = new CopyEncoder();
  for (let i = 0; i < rows; i++) {
    offset += 64n;
    copy.row(topicId === undefined ? 7 : 8, 44 + (topicId === undefined ? 0 : 4) + bytes.length);
    for (const value of [offset, offset + 63n, offset, 0n, now() + day * microsecondsOfDay]) copy.int64(value);
    if (topicId !== undefined) copy.int32(topicId);
    copy.int32(Number(offset / 64n) % partitionCount);
    copy.bytes([bytes], bytes.length);
  }
  return copy.finish();
}

const copyInto = (leaf: Leaf, table = leaf.table): string =>
  `COPY ${table} (base_offset, last_offset, global_offset, max_timestamp, appended_at${leaf.topicId === undefined ? '' : ', topic_id'}, partition_id, records) FROM STDIN (FORMAT binary)`;

/** CPU of a process on this machine, in microseconds; undefined elsewhere. */
function cpuOf(pid: number): number | undefined {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'latin1').split(' ')[0]) / 1000;
  } catch {
    return undefined;
  }
}

/** Transactions of `leaves.length` COPYs, over and over. The backend's CPU tells more than the rate on a busy machine. */
async function appendRate(
  url: string,
  next: (turn: number) => Leaf[],
  rowsEach: number,
  table?: string,
): Promise<string> {
  const session = await Session.open(url, { applicationName: 'bench layout' });
  const bytes = crypto.getRandomValues(Buffer.alloc(batchBytes));
  let rows = 0;
  const cpu = cpuOf(session.processId);
  const start = performance.now();
  for (let turn = 0; performance.now() - start < seconds * 1000; turn++) {
    const leaves = next(turn);
    const copies = leaves.map(leaf => copyInto(leaf, table)).join('; ');
    await session.execute(
      `BEGIN; ${copies}; COMMIT`,
      leaves.map(leaf => payload(leaf, rowsEach, bytes)),
    );
    rows += leaves.length * rowsEach;
  }
  const rate = (rows * 1000) / (performance.now() - start);
  const spent = cpu === undefined ? '' : `, ${((cpuOf(session.processId)! - cpu) / rows).toFixed(0)} µs CPU a row`;
  await session.end();
  return `${Math.round(rate)} rows/s, ${Math.round((rate * batchBytes) / 1e6)} MB/s${spent}`;
}

/** Anonymous memory of a backend, MB, and what its memory contexts hold. */
async function memory(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ pid: number; contexts: string }>(
    'SELECT pg_backend_pid() AS pid, sum(total_bytes) AS contexts FROM pg_backend_memory_contexts',
  );
  const contexts = `${(Number(rows[0]!.contexts) / 1e6).toFixed(1)} MB in contexts`;
  try {
    const status = readFileSync(`/proc/${rows[0]!.pid}/status`, 'latin1');
    return `${(Number(/RssAnon:\s+(\d+)/.exec(status)![1]) / 1e3).toFixed(1)} MB, ${contexts}`;
  } catch {
    return contexts;
  }
}

async function locks(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ count: string }>(
    `SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation <> 'pg_locks'::regclass`,
  );
  return Number(rows[0]!.count);
}

async function measure(layout: Layout, url: string): Promise<void> {
  const pool = openPool(url, { max: 1, applicationName: 'bench layout' });
  let client = await connect(url);
  await layout.prepare(pool, client);
  await pool.end();
  const catalogue = async () => {
    const { rows } = await client.query<{ bytes: string }>(
      `SELECT sum(pg_total_relation_size(oid)) AS bytes FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'`,
    );
    return Number(rows[0]!.bytes);
  };
  const before = await catalogue();

  note('create the topics', each(await timed(() => layout.createTopics(client, topicCount, partitionCount))));
  await layout.createInterval(client, topics, 0);
  note('create an interval for all', each(await timed(() => layout.createInterval(client, topics, 1))));
  note('catalogue grows by', `${(((await catalogue()) - before) / 1e6).toFixed(0)} MB for two intervals`);
  const { rows: files } = await client.query<{ count: string }>(
    `SELECT count(*) FROM pg_class WHERE relfilenode <> 0 AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)`,
  );
  note('files', files[0]!.count);

  // A kilobyte for every topic in either interval, so that every leaf holds something.
  const filler = await Session.open(url, { applicationName: 'bench layout' });
  const kilobyte = crypto.getRandomValues(Buffer.alloc(1024));
  for (const interval of [0, 1]) {
    for (const topic of topics) {
      const leaf = layout.leaf(topic, interval);
      await filler.execute(`BEGIN; ${copyInto(leaf)}; COMMIT`, [
        payload(leaf, partitionCount, kilobyte, BigInt(interval - 1)),
      ]);
    }
  }
  await filler.end();
  await client.query('VACUUM ANALYZE');
  await client.end();

  const leafOf = (topic: number) => layout.leaf(((topic - 1) % topicCount) + 1, 1);
  client = await connect(url);
  for (const topic of topics) await client.query(`SELECT FROM ${leafOf(topic).table} WHERE partition_id = 0 LIMIT 1`);
  note('backend that used every newest leaf', await memory(client));
  await client.end();

  client = await connect(url);
  try {
    const first = await timed(() => client.query(layout.sql, ['t7']));
    const again = await timed(() => client.query(layout.sql, ['t8']));
    note('SQL over one topic by name', `${ms(first)} at first, ${ms(again)} again`);
    note('backend that ran it', await memory(client));
    await client.query('BEGIN');
    await client.query(layout.sql, ['t9']);
    note('locks it holds', `${await locks(client)}`);
    await client.query('COMMIT');
  } catch (error) {
    note('SQL over one topic by name', `fails: ${(error as Error).message}`);
  }
  await client.end();

  note('append ×16 to one leaf', await appendRate(url, () => [leafOf(1)], 16));
  note('append to 100 leaves', await appendRate(url, turn => topics.slice(0, 100).map(i => leafOf(i + 100 * turn)), 1));
  if (layout.router) note('append ×16 through the parent', await appendRate(url, () => [leafOf(1)], 16, layout.router));

  client = await connect(url);
  note('delete a topic', ms(await timed(() => layout.deleteTopic(client, 5))));
  const rest = topics.filter(topic => topic !== 5);
  note('drop an interval of all', each(await timed(() => layout.dropInterval(client, rest, 0))));
  await client.end();
}

const admin = await connect(server);
const { rows: version } = await admin.query('SHOW server_version');
const chosen = [partitioned, standalone, shared].filter(layout => values.layouts.split(',').includes(layout.name));
for (const layout of chosen) {
  const database = `millrace_layout_${layout.name.toLowerCase()}_${process.pid}`;
  process.stderr.write(`\n${layout.name}: ${layout.what}\n`);
  await admin.query(`CREATE DATABASE ${database}`);
  try {
    const url = new URL(server);
    url.pathname = `/${database}`;
    await measure(layout, url.href);
  } finally {
    await admin.query(`DROP DATABASE ${database} WITH (FORCE)`);
  }
  column++;
}
await admin.end();

process.stdout.write(
  `PostgreSQL ${version[0].server_version}, ${topicCount} topics of ${partitionCount} partitions\n\n`,
);
process.stdout.write(`| | ${chosen.map(({ name, what }) => `${name}: ${what}`).join(' | ')} |\n`);
process.stdout.write(`|---|${'---|'.repeat(chosen.length)}\n`);
for (const [name, row] of results) {
  process.stdout.write(`| ${name} | ${chosen.map((_, i) => row[i] ?? '–').join(' | ')} |\n`);
}
