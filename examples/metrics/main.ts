// npm run demo:metrics: devices' metrics through a topic into a table, all of it on this machine. Started in strict order:
// database and broker, schema, topic, sink, producer; stopped in the reverse one, so that nothing is lost. README.md has the
// settings.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Admin } from '@platformatic/kafka';
import pg from 'pg';
import { createMetrics, createPartitionedMetrics } from './metric.ts';
import { MetricsProducer } from './producer.ts';
import { type DemoSettings, readSettings } from './settings.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const patienceMs = 60_000;

interface Running {
  readonly kafka: string;
  readonly http: string;
  readonly databaseUrl: string;
  stop(): Promise<void>;
}

interface SinkState {
  readonly state: string;
  readonly reason?: string;
  readonly lag: number;
  readonly rows: number;
  readonly batches: number;
  readonly writeMs: number;
}

async function startMillrace(settings: DemoSettings): Promise<Running> {
  const dataDir = resolve(settings.dataDir);
  const flags = ['--kafka=127.0.0.1:0', '--http=127.0.0.1:0', '--log-level=warn', `--data-dir=${dataDir}`];
  const env = { ...process.env };
  if (settings.postgresUrl !== undefined) flags.push('--database-url=env:POSTGRES_URL');
  const child = spawn(process.execPath, ['--import', 'tsx', join(root, 'src/main.ts'), ...flags], {
    cwd: root,
    env,
    detached: true, // Ctrl-C is ours: the producer stops first
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  const ended = new Promise<void>(done => child.once('close', () => done()));
  await new Promise<void>((ready, fail) => {
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk;
      if (said.includes('stops it')) ready();
    });
    void ended.then(() => fail(new Error(`Millrace did not start: ${said}`)));
  });
  const databaseUrl = settings.postgresUrl ?? embeddedUrl(dataDir);
  return {
    kafka: /Kafka +(127\.0\.0\.1:\d+)/.exec(said)![1]!,
    http: /HTTP +(http:\S+?)\/?\s/.exec(said)![1]!,
    databaseUrl,
    async stop() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function embeddedUrl(dataDir: string): string {
  const [port, password] = ['port', 'password'].map(name => readFileSync(join(dataDir, name), 'utf8').trim());
  return `postgres://millrace:${password}@127.0.0.1:${port}/millrace`;
}

async function createTopic(kafka: string, partitions: number): Promise<void> {
  const admin = new Admin({ clientId: 'metrics', bootstrapBrokers: [kafka] });
  try {
    if (!(await admin.listTopics()).includes('metrics')) {
      await admin.createTopics({ topics: ['metrics'], partitions, replicas: 1 });
    }
  } finally {
    await admin.close();
  }
}

async function sinkState(http: string): Promise<SinkState> {
  return (await (await fetch(`${http}/api/sinks/metrics`)).json()) as SinkState;
}

/** Made over HTTP, so that an earlier run's is there already and goes on where it was. */
async function startSink(http: string, keepDays: number): Promise<void> {
  const dailyPartitions = { column: 'published_at', keepDays };
  const definition = { topics: ['metrics'], errors: 'dead-letter', ...(keepDays > 0 ? { dailyPartitions } : {}) };
  const made = await fetch(`${http}/api/sinks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'metrics', definition }),
  });
  if (made.status !== 201 && made.status !== 409) throw new Error(`the sink was refused: ${await made.text()}`);
  for (const deadline = Date.now() + patienceMs; ; await delay(50)) {
    const { state, reason } = await sinkState(http);
    if (state === 'running') return;
    if (Date.now() > deadline) throw new Error(`the sink does not run: it is ${state}, ${reason}`);
  }
}

const queries = [
  ['rows', 'SELECT count(*) AS rows, count(DISTINCT device_id) AS devices FROM metrics'],
  [
    'busiest devices',
    `SELECT device_id, count(*) AS metrics, round(avg(value)::numeric, 2) AS mean, max(published_at) AS newest
     FROM metrics GROUP BY device_id ORDER BY 2 DESC LIMIT 5`,
  ],
  [
    'rows per minute',
    `SELECT date_trunc('minute', created_at) AS minute, count(*) AS rows FROM metrics GROUP BY 1 ORDER BY 1 DESC LIMIT 5`,
  ],
] as const;

const rate = (count: number, ms: number): string => `${Math.round((count / ms) * 1000).toLocaleString('en')}/s`;

/** Prints a line a second, until `stopping`. */
async function watch(producer: MetricsProducer, http: string, stopping: AbortSignal): Promise<void> {
  let before = { at: performance.now(), produced: producer.produced, sink: await sinkState(http) };
  while (!stopping.aborted) {
    await delay(1000, undefined, { signal: stopping }).catch(() => {});
    const now = { at: performance.now(), produced: producer.produced, sink: await sinkState(http) };
    const ms = now.at - before.at;
    const batches = now.sink.batches - before.sink.batches;
    const each = batches > 0 ? `${Math.round((now.sink.writeMs - before.sink.writeMs) / batches)} ms a batch` : 'idle';
    console.log(
      `produced ${now.produced.toLocaleString('en')} (${rate(now.produced - before.produced, ms)})   in the table ` +
        `${rate(now.sink.rows - before.sink.rows, ms)}   waiting ${now.sink.lag.toLocaleString('en')}   ${each}`,
    );
    if (producer.failure) console.log(`the producer failed: ${producer.failure.message}`);
    before = now;
  }
}

const settings = readSettings(process.env);
const stopping = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopping.abort());

if (settings.kafkaUrl !== undefined) {
  const producer = new MetricsProducer(settings, settings.kafkaUrl);
  console.log(`producing to ${settings.kafkaUrl}; ${await producer.start()}`);
  if (settings.seconds > 0) setTimeout(() => stopping.abort(), settings.seconds * 1000);
  await new Promise<void>(done => stopping.signal.addEventListener('abort', () => done()));
  await producer.stop();
  console.log(`produced ${producer.produced}`);
} else {
  const millrace = await startMillrace(settings);
  try {
    console.log(`Millrace     ${millrace.http}/readyz, Kafka at ${millrace.kafka}`);
    const client = new pg.Client({ connectionString: millrace.databaseUrl });
    await client.connect();
    await client.query(settings.retentionDays > 0 ? createPartitionedMetrics : createMetrics);
    await createTopic(millrace.kafka, settings.partitions);
    await startSink(millrace.http, settings.retentionDays);
    console.log(`sink         ${millrace.http}/api/sinks/metrics`);
    const producer = new MetricsProducer(settings, millrace.kafka);
    console.log(`producer     ${await producer.start()}`);
    if (settings.seconds > 0) setTimeout(() => stopping.abort(), settings.seconds * 1000);
    await watch(producer, millrace.http, stopping.signal);
    await producer.stop();
    for (const deadline = Date.now() + patienceMs; (await sinkState(millrace.http)).lag > 0; await delay(50)) {
      if (Date.now() > deadline) throw new Error('the sink did not catch up');
    }
    console.log(`\nproduced ${producer.produced.toLocaleString('en')}, all in the table`);
    for (const [title, sql] of queries) {
      console.log(`\n${title}`);
      console.table((await client.query(sql)).rows);
    }
    await client.end();
  } finally {
    await millrace.stop();
  }
}
