// node --import tsx bench/decode.ts --database-url URL
// How fast SQL decodes record batches: kafka.decode_batches beside the loop one would write first, and the view over
// it, in a database of its own on that server. Microseconds of one backend's CPU where the server runs on this
// machine (a busy machine does not disturb them much), else of time; the best of several rounds, no parallel query.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { migrate } from '../src/postgres/migrate.ts';
import { openPool } from '../src/postgres/pool.ts';
import { plainBatch } from '../test/sql/foreign-encoder.ts';
import { append, createTopic, openSegment } from '../test/sql/log-rig.ts';

const { values } = parseArgs({
  options: { 'database-url': { type: 'string' }, rounds: { type: 'string', default: '7' } },
});
if (!values['database-url']) throw new Error('--database-url is missing: a superuser URL of a PostgreSQL 14 or newer');
const server = values['database-url'];
const shapes = [
  { name: 'rows of 1 record', perBatch: 1, batches: 20_000 },
  { name: 'rows of 64 records (8 KB)', perBatch: 64, batches: 1000 },
  { name: 'rows of 8,000 records (1 MB)', perBatch: 8000, batches: 10 },
];

/** An assignment and a test for every byte of a varint. It knows no header, codec, attribute or damage. */
const readVarint =
  'x := get_byte(b, q); n := x & 127; q := q + 1; s := 7; WHILE x > 127 LOOP x := get_byte(b, q); n := n | ((x & 127) << s); s := s + 7; q := q + 1; END LOOP;';
const simpleLoop = `
CREATE FUNCTION kafka.simple_loop(records bytea) RETURNS TABLE (partition_offset bigint, timestamp_ms bigint, key bytea, value bytea)
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  b bytea := records || ''::bytea;
  q int := 61; e int; n int; x int; s int;
  base bigint := ('x' || encode(substr(b, 1, 8), 'hex'))::bit(64)::bigint;
  base_timestamp bigint := ('x' || encode(substr(b, 28, 8), 'hex'))::bit(64)::bigint;
BEGIN
  FOR i IN 1 .. ('x' || encode(substr(b, 58, 4), 'hex'))::bit(32)::int LOOP
    ${readVarint} e := q + (n >> 1); q := q + 1;
    ${readVarint} timestamp_ms := base_timestamp + (n >> 1);
    ${readVarint} partition_offset := base + (n >> 1);
    ${readVarint} key := substr(b, q + 1, n >> 1); q := q + (n >> 1);
    ${readVarint} value := substr(b, q + 1, n >> 1);
    q := e;
    RETURN NEXT;
  END LOOP;
END $$`;

const queries = {
  'the simple loop': `SELECT count(*), sum(length(value)) FROM TABLE, LATERAL kafka.simple_loop(records)`,
  'kafka.decode_batches': `SELECT count(*), sum(length(value)) FROM TABLE, LATERAL kafka.decode_batches(records)`,
  'kafka.messages': `SELECT count(*), sum(length(value)) FROM kafka.messages WHERE topic = 'TOPIC'`,
  'kafka.messages, with timestamps and headers': `SELECT count(*), max(timestamp), max(cardinality(headers)) FROM kafka.messages WHERE topic = 'TOPIC'`,
};

const admin = new pg.Client({ connectionString: server });
await admin.connect();
const database = `millrace_decode_${process.pid}`;
await admin.query(`CREATE DATABASE ${database}`);
const url = new URL(server);
url.pathname = `/${database}`;
const pool = openPool(url.href, { max: 1, applicationName: 'bench decode' });
try {
  await migrate(pool);
  await pool.query(simpleLoop);
  await pool.query('SET max_parallel_workers_per_gather = 0; SET jit = off');
  const { rows } = await pool.query<{ pid: number; version: string }>(
    `SELECT pg_backend_pid() AS pid, current_setting('server_version') AS version`,
  );
  const { pid, version } = rows[0]!;
  const local = new URL(server).hostname === '127.0.0.1' || new URL(server).hostname === 'localhost';
  const spent = (): number =>
    local ? Number(readFileSync(`/proc/${pid}/schedstat`, 'latin1').split(' ')[0]) / 1000 : performance.now() * 1000;

  process.stdout.write(`PostgreSQL ${version}; µs ${local ? 'of CPU ' : ''}per record of 100 bytes\n\n`);
  process.stdout.write(`| | ${shapes.map(({ name }) => name).join(' | ')} |\n|---|${'---|'.repeat(shapes.length)}\n`);
  const tables: string[] = [];
  for (const [i, { perBatch, batches }] of shapes.entries()) {
    const segment = await openSegment(pool, await createTopic(pool, `shape ${i}`, 1));
    tables.push(`kafka.segment_${segment}`);
    for (let n = 0; n < batches; n++) {
      const baseOffset = BigInt(n * perBatch);
      const lastOffset = baseOffset + BigInt(perBatch - 1);
      const records = await plainBatch(baseOffset, perBatch, 100);
      await append(pool, segment, [{ partition: 0, baseOffset, lastOffset, records }]);
    }
  }
  for (const [name, sql] of Object.entries(queries)) {
    const cells: string[] = [];
    for (const [i, { perBatch, batches }] of shapes.entries()) {
      let best = Number.POSITIVE_INFINITY;
      for (let round = 0; round < Number(values.rounds); round++) {
        const before = spent();
        await pool.query(sql.replace('TABLE', tables[i]!).replace('TOPIC', `shape ${i}`));
        best = Math.min(best, spent() - before);
      }
      const each = best / (perBatch * batches);
      cells.push(`${each.toFixed(2)} (${Math.round(1000 / each)}k/s)`);
    }
    process.stdout.write(`| ${name} | ${cells.join(' | ')} |\n`);
  }
} finally {
  await pool.end();
  await admin.query(`DROP DATABASE ${database} WITH (FORCE)`);
  await admin.end();
}
