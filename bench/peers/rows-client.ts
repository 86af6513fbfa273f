// The program that writes and reads the row-per-message tables: node --import tsx rows-client.ts MODE name=value…
// Prints one JSON object, as the librdkafka client does. A write reserves its offsets from the partition's counter row
// and inserts its rows in one statement, which is one transaction; a read claims a range for its group and fetches it
// in one transaction.
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { Session } from '../../src/postgres/session.ts';

const [mode, ...pairs] = process.argv.slice(2);
const values = new Map(pairs.map(pair => pair.split(/=(.*)/s).slice(0, 2) as [string, string]));
const number = (name: string): number => Number(values.get(name) ?? 0);
const url = values.get('url')!;
const size = number('size');
const partitions = number('partitions');
const writers = number('writers');
const writeBatch = number('writeBatch');
const readBatch = number('readBatch');
const readers = Math.min(number('readers'), partitions);

const file = readFileSync(values.get('payloads')!);
const payloads = Array.from({ length: file.length / (size + 1) }, (_, i) =>
  file.subarray(i * (size + 1), i * (size + 1) + size),
);

async function open(count: number): Promise<pg.Client[]> {
  const clients = Array.from({ length: count }, () => new pg.Client({ connectionString: url }));
  await Promise.all(clients.map(client => client.connect()));
  await Promise.all(clients.map(client => client.query('SET synchronous_commit = on')));
  return clients;
}

/**
 * Rows as VALUES with binary parameters. unnest of an array, which goes as hexadecimal text, costs Postgres 7 CPU
 * seconds in place of 5 for a million records of 100 bytes, 29 in place of 7 at 1 KiB.
 */
function write(client: pg.Client, partition: number, records: readonly Buffer[]): Promise<unknown> {
  const list = records.map((_, i) => `(${i}, $${i + 1}::bytea)`).join(',');
  return client.query({
    name: `write-${partition}-${records.length}`,
    text: `WITH reserved AS (UPDATE counters SET next_offset = next_offset + ${records.length}
        WHERE partition_id = ${partition} RETURNING next_offset - ${records.length} AS first)
      INSERT INTO partition_${partition} (record_offset, payload)
      SELECT first + record.at, record.payload FROM reserved, (VALUES ${list}) AS record (at, payload)`,
    values: records as Buffer[],
  });
}

async function claimAndRead(client: pg.Client, group: string, partition: number): Promise<{ payload: Buffer }[]> {
  await client.query('BEGIN');
  const claimed = await client.query<{ first: string; count: string }>({
    name: `claim-${partition}`,
    text: `UPDATE consumer_offsets c
      SET next_offset = c.next_offset + least($2, t.next_offset - c.next_offset)
      FROM (SELECT next_offset FROM counters WHERE partition_id = ${partition}) t,
           (SELECT next_offset FROM consumer_offsets WHERE group_id = $1 AND partition_id = ${partition} FOR UPDATE) mine
      WHERE c.group_id = $1 AND c.partition_id = ${partition} AND t.next_offset > mine.next_offset
      RETURNING mine.next_offset AS first, c.next_offset - mine.next_offset AS count`,
    values: [group, readBatch],
  });
  const range = claimed.rows[0];
  let rows: { payload: Buffer }[] = [];
  if (range) {
    const read = await client.query<{ payload: Buffer }>({
      name: `read-${partition}`,
      text: `SELECT record_offset, payload, created_at FROM partition_${partition}
        WHERE record_offset >= $1 AND record_offset < $1 + $2::bigint ORDER BY record_offset`,
      values: [range.first, range.count],
    });
    rows = read.rows;
  }
  await client.query('COMMIT');
  return rows;
}

async function makeGroup(client: pg.Client, group: string): Promise<void> {
  await client.query(
    `INSERT INTO consumer_offsets SELECT $1, partition_id, 0 FROM counters
     ON CONFLICT (group_id, partition_id) DO UPDATE SET next_offset = 0`,
    [group],
  );
}

async function produce(): Promise<void> {
  const clients = await open(writers);
  const { records, seconds } = await writeFor(clients, number('records') || Number.POSITIVE_INFINITY);
  print(records, seconds);
  await Promise.all(clients.map(client => client.end()));
}

/** For the time that is given, or until there are so many. */
async function writeFor(clients: readonly pg.Client[], limit = Number.POSITIVE_INFINITY) {
  const begun = performance.now();
  const deadline = number('seconds') ? begun + number('seconds') * 1000 : Number.POSITIVE_INFINITY;
  let taken = 0;
  let records = 0;
  await Promise.all(
    clients.map(async (client, writer) => {
      for (let round = writer; taken < limit && performance.now() < deadline; round++) {
        const count = Math.min(writeBatch, limit - taken);
        const from = taken % payloads.length;
        taken += count;
        await write(client, round % partitions, takePayloads(from, count));
        records += count;
      }
    }),
  );
  return { records, seconds: (performance.now() - begun) / 1000 };
}

/** Groups of readers, each of which gets everything, while it is written; the rate is theirs together. */
async function tail(): Promise<void> {
  const clients = await open(writers);
  const groups = Array.from({ length: number('groups') }, (_, i) => `bench-${i}`);
  for (const group of groups) await makeGroup(clients[0]!, group);
  const reading = await open(groups.length * readers);
  const begun = performance.now();
  let written = Number.POSITIVE_INFINITY;
  let consumed = 0;
  const received = groups.map(() => 0);
  const consuming = reading.map(async (client, i) => {
    const group = Math.floor(i / readers);
    while (received[group]! < written) {
      let found = 0;
      for (let partition = i % readers; partition < partitions; partition += readers) {
        found += (await claimAndRead(client, groups[group]!, partition)).length;
      }
      received[group]! += found;
      consumed += found;
      if (found === 0) await new Promise(resolve => setTimeout(resolve, 1));
    }
  });
  written = (await writeFor(clients)).records;
  await Promise.all(consuming);
  print(written, (performance.now() - begun) / 1000, { consumed });
  await Promise.all([...clients, ...reading].map(client => client.end()));
}

/** Reads through what is stored; the position is kept here, as the librdkafka client keeps it. */
async function consume(): Promise<void> {
  const sessions = await Promise.all(
    Array.from({ length: readers }, () => Session.open(url, { applicationName: 'millrace-bench' })),
  );
  const begun = performance.now();
  const deadline = begun + number('seconds') * 1000;
  let records = 0;
  await Promise.all(
    sessions.map(async (session, reader) => {
      for (let partition = reader; partition < partitions; partition += readers) {
        for (let position = 0n; performance.now() < deadline; ) {
          const read = await session.query(
            `SELECT record_offset, payload, created_at FROM partition_${partition}
             WHERE record_offset >= $1 ORDER BY record_offset LIMIT $2::int`,
            [position, number('bulkReadBatch')],
          );
          const last = read.rows.at(-1);
          records += read.rows.length;
          if (last) position = last[0]!.readBigInt64BE() + 1n;
          read.release();
          if (!last) break;
        }
      }
    }),
  );
  print(records, (performance.now() - begun) / 1000);
  await Promise.all(sessions.map(session => session.end()));
}

/** Open loop: records become due at the rate; a free writer takes what is due, a batch at most. */
async function latency(): Promise<void> {
  const clients = await open(writers);
  const reading = await open(readers);
  await makeGroup(reading[0]!, 'bench');
  const rate = number('rate');
  const warmupMs = 1000;
  const total = Math.round(rate * (number('seconds') + warmupMs / 1000));
  const acknowledged: number[] = [];
  const delivered: number[] = [];
  const begun = performance.now();
  const dueAt = (i: number): number => begun + (i * 1000) / rate;
  const note = (into: number[], due: number): void => {
    if (due >= begun + warmupMs) into.push(performance.now() - due);
  };
  let next = 0;
  let written = 0;
  let received = 0;
  const writing = clients.map(async (client, writer) => {
    for (let round = writer; next < total; round++) {
      const first = next;
      const due = Math.min(total, Math.floor(((performance.now() - begun) * rate) / 1000) + 1);
      next = Math.min(due, first + writeBatch);
      if (next <= first) {
        next = first;
        await new Promise(resolve => setTimeout(resolve, Math.max(0, dueAt(first) - performance.now())));
        continue;
      }
      const records = takePayloads(first % payloads.length, next - first).map((payload, i) => {
        const record = Buffer.from(payload);
        record.writeDoubleLE(dueAt(first + i));
        return record;
      });
      await write(client, round % partitions, records);
      for (let i = 0; i < records.length; i++) note(acknowledged, dueAt(first + i));
      written += records.length;
    }
  });
  const consuming = reading.map(async (client, reader) => {
    while (received < total) {
      let found = 0;
      for (let partition = reader; partition < partitions; partition += readers) {
        const rows = await claimAndRead(client, 'bench', partition);
        for (const { payload } of rows) note(delivered, payload.readDoubleLE());
        found += rows.length;
      }
      received += found;
      if (found === 0) await new Promise(resolve => setTimeout(resolve, 1));
    }
  });
  await Promise.all([...writing, ...consuming]);
  print(written, (performance.now() - begun) / 1000, {
    ack: percentiles(acknowledged),
    end_to_end: percentiles(delivered),
  });
  await Promise.all([...clients, ...reading].map(client => client.end()));
}

function takePayloads(from: number, count: number): Buffer[] {
  const taken = payloads.slice(from, from + count);
  while (taken.length < count) taken.push(...payloads.slice(0, count - taken.length));
  return taken;
}

function percentiles(values: number[]): Record<string, number> {
  values.sort((a, b) => a - b);
  const at = (share: number): number => values[Math.min(values.length - 1, Math.floor(share * values.length))]!;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), p999: at(0.999) };
}

function print(records: number, seconds: number, more: object = {}): void {
  const { userCPUTime, systemCPUTime } = process.resourceUsage();
  console.log(JSON.stringify({ records, seconds, cpu_s: (userCPUTime + systemCPUTime) / 1e6, ...more }));
}

const modes: Record<string, () => Promise<void>> = { produce, tail, consume, latency };
const run = modes[mode ?? ''];
if (!run) throw new Error(`unknown mode ${mode}`);
await run();
