// The program behind copy-sink.ts. node --import tsx copy-client.ts name=value…; says "ready" when its rows are, writes
// them, and ends when its input does: what it has cost is read until then.
import { once } from 'node:events';
import { CopyRows } from '../../src/postgres/copy-rows.ts';
import { Session } from '../../src/postgres/session.ts';
import { stored } from './stream.ts';

const values = new Map(process.argv.slice(2).map(pair => pair.split(/=(.*)/s).slice(0, 2) as [string, string]));
const number = (name: string): number => Number(values.get(name));
const isInsert = values.get('mode') === 'insert';
const connections = number('connections');
const textOid = 25;
const postgresEpochMs = Date.UTC(2000, 0, 1);
const columns = 'device_id, published_at, metric_name, value, tags';

/** Of each connection, in the order of its partitions. */
const batches: CopyRows[][] = Array.from({ length: connections }, () => []);
for (const { partition, metric } of stored({ repeats: number('repeats'), seed: number('seed') }, number('records'))) {
  const own = batches[partition % connections]!;
  let copy = own.at(-1);
  if (copy === undefined || copy.rows >= number('batchRows')) {
    copy = new CopyRows();
    own.push(copy);
  }
  copy.beginRow(isInsert ? 5 : 6);
  if (!isInsert) {
    copy.length(4);
    copy.uint32(copy.rows);
  }
  copy.blob(Buffer.from(metric.deviceId.replaceAll('-', ''), 'hex'));
  copy.length(8);
  copy.int64((metric.publishedAt - postgresEpochMs) * 1000);
  copy.length(2);
  copy.uint16(metric.metricName);
  copy.length(8);
  copy.double(metric.value);
  const lengthAt = copy.at;
  copy.length(20);
  for (const word of [1, 0, textOid, metric.tags.length, 1]) copy.uint32(word);
  for (const tag of metric.tags) copy.text(tag);
  copy.bytes.writeInt32BE(copy.at - lengthAt - 4, lengthAt);
}
const ready = batches.map(own => own.map(copy => copy.finish()));

const upsert = `INSERT INTO metrics (${columns}) SELECT ${columns} FROM
  (SELECT DISTINCT ON (device_id, published_at, metric_name) * FROM pg_temp.stage ORDER BY device_id, published_at, metric_name, seq DESC) s
  ON CONFLICT (device_id, published_at, metric_name) DO UPDATE SET value = excluded.value, tags = excluded.tags`;
const sql = isInsert
  ? `BEGIN; COPY metrics (${columns}) FROM STDIN (FORMAT binary); COMMIT`
  : `BEGIN; COPY pg_temp.stage FROM STDIN (FORMAT binary); ${upsert}; COMMIT`;
const stage = `CREATE TEMP TABLE stage (seq int4, device_id uuid, published_at timestamptz, metric_name smallint, value float8, tags text[])
  ON COMMIT DELETE ROWS`;

const sessions = await Promise.all(
  batches.map(() => Session.open(values.get('url')!, { applicationName: 'millrace-bench' })),
);
for (const session of sessions) {
  await session.execute(`SET synchronous_commit = ${values.get('synchronousCommit')}; SET work_mem = '32MB'; ${stage}`);
}
console.log('ready');
await Promise.all(
  sessions.map(async (session, i) => {
    for (const copy of ready[i]!) await session.execute(sql, [copy]);
  }),
);
await Promise.all(sessions.map(session => session.end()));
process.stdin.resume();
await once(process.stdin, 'end');
