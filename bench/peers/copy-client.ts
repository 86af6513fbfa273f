// The program behind copy.ts: COPY of ready-made batches until the time is up. node --import tsx copy-client.ts
// name=value…, prints one JSON object.
import { readFileSync } from 'node:fs';
import { CopyEncoder, type CopyPayload } from '../../src/postgres/copy.ts';
import { Session } from '../../src/postgres/session.ts';
import { lastOffsetDelta } from '../../src/protocol/record-batch.ts';
import { buildBatch } from '../../src/protocol/records.ts';

const values = new Map(process.argv.slice(2).map(pair => pair.split(/=(.*)/s).slice(0, 2) as [string, string]));
const number = (name: string): number => Number(values.get(name));
const url = values.get('url')!;
const size = number('size');

const file = readFileSync(values.get('payloads')!);
const payloads = Array.from({ length: file.length / (size + 1) }, (_, i) =>
  file.subarray(i * (size + 1), i * (size + 1) + size),
);

function readyBatch(): Buffer {
  const timestamp = BigInt(Date.now());
  const one = buildBatch({ records: [{ timestamp, value: payloads[0]! }] }).length;
  const two = buildBatch({ records: payloads.slice(0, 2).map(value => ({ timestamp, value })) }).length;
  const count = Math.max(1, Math.round((number('batchBytes') - one) / (two - one)) + 1);
  return buildBatch({
    records: Array.from({ length: count }, (_, i) => ({ timestamp, value: payloads[i % payloads.length]! })),
  });
}

const batch = readyBatch();
const recordsInBatch = lastOffsetDelta(batch) + 1;
const batchesInGroup = Math.max(1, Math.floor(number('groupBytes') / batch.length));
const table = `copied_${process.pid}`;

function encode(partition: number, first: number): CopyPayload {
  const copy = new CopyEncoder();
  for (let i = 0; i < batchesInGroup; i++) {
    const base = BigInt(first + i * recordsInBatch);
    copy.row(6, 36 + batch.length);
    copy.int64(base);
    copy.int64(base + BigInt(recordsInBatch - 1));
    copy.int64(base);
    copy.int64(0n);
    copy.int32(partition);
    copy.bytes([batch], batch.length);
  }
  return copy.finish();
}

const sessions = await Promise.all(
  Array.from({ length: number('connections') }, () => Session.open(url, { applicationName: 'millrace-bench' })),
);
await sessions[0]!.execute(
  `CREATE TABLE ${table} (base_offset bigint NOT NULL, last_offset bigint NOT NULL, global_offset bigint NOT NULL,
     max_timestamp bigint NOT NULL, appended_at timestamptz NOT NULL DEFAULT now(), partition_id int NOT NULL,
     records bytea NOT NULL, PRIMARY KEY (partition_id, last_offset))
   WITH (toast_tuple_target = 8160, autovacuum_vacuum_insert_threshold = -1);
   ALTER TABLE ${table} ALTER records SET STORAGE EXTERNAL, ALTER records SET STATISTICS 0`,
);

const begun = performance.now();
const deadline = begun + number('seconds') * 1000;
let records = 0;
await Promise.all(
  sessions.map(async (session, partition) => {
    await session.execute('SET synchronous_commit = on');
    for (let first = 0; performance.now() < deadline; first += batchesInGroup * recordsInBatch) {
      const copy = encode(partition, first);
      await session.execute(
        `BEGIN; COPY ${table} (base_offset, last_offset, global_offset, max_timestamp, partition_id, records)
           FROM STDIN (FORMAT binary); COMMIT`,
        [copy],
      );
      records += batchesInGroup * recordsInBatch;
    }
  }),
);
const seconds = (performance.now() - begun) / 1000;
await sessions[0]!.execute(`DROP TABLE ${table}`);
await Promise.all(sessions.map(session => session.end()));
const { userCPUTime, systemCPUTime } = process.resourceUsage();
console.log(JSON.stringify({ records, seconds, cpu_s: (userCPUTime + systemCPUTime) / 1e6 }));
