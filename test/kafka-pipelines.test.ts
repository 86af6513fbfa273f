// Every pipeline on a real Apache Kafka: a table is captured into it, and out of it records become rows of a twin and events
// of a stream, while Millrace is killed. So nothing but addresses changes for who moves to another engine.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type KafkaServer, kafkaIsMissing, startKafka } from '../compat/kafka/kafka.ts';
import { StreamClient } from './deliver-rig.ts';
import { TestServer } from './faults/server.ts';
import { eventually } from './open-log.ts';

const missing = kafkaIsMissing();
const skip = missing ? { skip: missing } : {};

let directory: string;
let kafka: KafkaServer;
let millrace: TestServer;

before(async () => {
  if (missing) return;
  directory = mkdtempSync(join(tmpdir(), 'millrace-pipelines-'));
  const overrides = { 'num.partitions': '3', 'offsets.topic.num.partitions': '1' };
  [kafka, millrace] = await Promise.all([
    startKafka({ dataDir: join(directory, 'kafka'), heap: '400M', overrides }),
    TestServer.start(),
  ]);
});
after(async () => {
  await millrace?.remove();
  await kafka?.stop();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

async function make(kind: string, name: string, definition: object): Promise<void> {
  const answer = await fetch(`${millrace.http}/api/${kind}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name, definition }),
  });
  assert.equal(answer.status, 201, await answer.text());
}

test('a table captured into Kafka is, out of it, a twin and a stream, each change once, though Millrace is killed', {
  ...skip,
  timeout: 200_000,
}, async () => {
  const { bootstrap } = kafka;
  const run = async (text: string): Promise<Record<string, unknown>[]> => {
    const client = await millrace.sql();
    try {
      return (await client.query(text)).rows;
    } finally {
      await client.end();
    }
  };
  await run('CREATE TABLE job (id int PRIMARY KEY, owner text, state text)');
  await run('CREATE TABLE twin (id int PRIMARY KEY, owner text, state text)');
  const capture = { tables: ['public.job'], topic: 'jobs', snapshot: 'never', target: { bootstrap } };
  await make('captures', 'jobs', capture);
  const statusOf = async (kind: string): Promise<{ state: string; lag?: number }> => {
    const [first] = (await (await fetch(`${millrace.http}/api/${kind}`)).json()) as { state: string }[];
    return first!;
  };
  await eventually(async () => (await statusOf('captures')).state === 'streaming');
  const source = { bootstrap, metadataMs: 500 };
  await make('sinks', 'twin', { topics: ['jobs'], source, table: 'twin', format: 'debezium', lingerMs: 0 });
  await make('inboxes', 'changes', { topics: ['jobs'], source, subscriber: '$.after.owner', data: '$.after.state' });

  const insert = (from: number, to: number) =>
    run(`INSERT INTO job SELECT n, 'ada', 'job ' || n FROM generate_series(${from}, ${to}) n`);
  await insert(1, 300);
  const changes = () => StreamClient.open(`${millrace.http}/v1/stream?inbox=changes&subscriber=ada&since=2000-01-01`);
  await (await changes()).received(100);
  await millrace.killBroker();
  await millrace.start();
  await insert(301, 600);

  const stream = await changes();
  await stream.received(600);
  assert.equal(new Set(stream.data).size, 600, 'delivery');
  const difference = '(TABLE job EXCEPT TABLE twin) UNION ALL (TABLE twin EXCEPT TABLE job)';
  await eventually(async () => (await run(difference)).length === 0);
  // Whatever still came twice would be in the inbox by the time that it has read everything.
  await eventually(async () => {
    const { state, lag } = await statusOf('inboxes');
    return state === 'running' && lag === 0;
  });
  const [events] = await run(`SELECT count(*)::int AS rows FROM kafka.inbox_events('changes') WHERE dead IS NULL`);
  assert.equal(events!.rows, 600);
  const [held] = await run(`SELECT count(*)::int AS topics FROM kafka.topics WHERE name = 'jobs'`);
  assert.equal(held!.topics, 0, 'nothing goes through this log');
  stream.close();
});
