// The same changes, captured by Debezium and by Millrace: a PostgreSQL of its own, a Millrace beside it, and Debezium's
// embedded engine, each once for every way in which events are written.
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { pino } from 'pino';
import { EmbeddedPostgres } from '../../src/postgres/embedded.ts';
import { Millrace } from '../../test/millrace.ts';
import { connect } from '../kafkajs/member.ts';
import { until } from '../suite.ts';
import type { CapturedEvent } from './comparison.ts';
import { type Debezium, startDebezium } from './debezium.ts';

export interface Way {
  /** The prefix of its topics, too. */
  readonly name: string;
  /** Of a capture in millrace.yaml, beside what every way has. */
  readonly definition: Readonly<Record<string, unknown>>;
  /** Of Debezium's connector. */
  readonly properties: Readonly<Record<string, string>>;
}

export interface Captured {
  readonly debezium: readonly CapturedEvent[];
  readonly millrace: readonly CapturedEvent[];
}

/** The last change: both have everything when they have this. */
const lastMessage = 'the last one';
const deadlineMs = 300_000;

/**
 * `before` is there when they begin; `changes` are run one after another, each in a transaction if it does not begin one.
 * By the names of the ways.
 */
export async function captureBoth(
  ways: readonly Way[],
  before: Iterable<string>,
  changes: Iterable<string>,
): Promise<Map<string, Captured>> {
  const directory = mkdtempSync(join(tmpdir(), 'compat-debezium-'));
  chmodSync(directory, 0o711); // PostgreSQL may run as another user
  const postgres = new EmbeddedPostgres({
    dataDir: join(directory, 'data'),
    logger: pino({ level: 'silent' }),
    // Little memory: larger transactions come to Millrace before their commit.
    settings: { logical_decoding_work_mem: '64kB' },
    onFailure: error => console.error(error.sentence),
  });
  const running: { stop(): Promise<unknown> }[] = [];
  try {
    await postgres.start();
    const sourceUrl = await createDatabases(postgres.tcpUrl);
    const source = new pg.Client({ connectionString: sourceUrl });
    await source.connect();
    running.push({ stop: () => source.end() });
    for (const statement of before) await source.query(statement);
    await source.query(
      'CREATE PUBLICATION everything FOR TABLES IN SCHEMA public WITH (publish_via_partition_root = true)',
    );

    const millrace = await startMillrace(directory, postgres.tcpUrl, sourceUrl, ways);
    running.push(millrace);
    const engines: Debezium[] = [];
    for (const way of ways) {
      await source.query('SELECT pg_create_logical_replication_slot($1, $2)', [`debezium_${way.name}`, 'pgoutput']);
      engines.push(await startEngine(join(directory, way.name), sourceUrl, way));
    }
    running.push(...engines);

    // Changes are not streamed that are made before its snapshot.
    for (const [i, { name, properties }] of ways.entries()) {
      const file = join(directory, name, 'events.ndjson');
      if (properties['snapshot.mode'] === 'initial')
        await until(`the snapshot of Debezium ${name}`, () => hasEvent(engines[i]!, file, hasLastRow), deadlineMs);
    }

    for (const sql of changes) {
      await source.query(sql).catch((error: Error) => {
        throw new Error(`${error.message}: ${sql.slice(0, 500)}`);
      });
    }
    await source.query('SELECT pg_logical_emit_message(true, $1, $1)', [lastMessage]);

    const captured = new Map<string, Captured>();
    const bootstrap = /Kafka +(\S+)/.exec(millrace.stdout)![1]!;
    for (const [i, { name }] of ways.entries()) {
      const file = join(directory, name, 'events.ndjson');
      const engine = engines[i]!;
      await until(`the last event of Debezium ${name}`, () => hasEvent(engine, file, hasLast), deadlineMs);
      await engine.stop();
      const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
      const debezium = lines.map(line => JSON.parse(line) as CapturedEvent);
      captured.set(name, { debezium, millrace: await readTopics(bootstrap, name) });
    }
    return captured;
  } finally {
    for (const { stop } of running.map(part => ({ stop: () => part.stop() })).reverse())
      await stop().catch(console.error);
    await postgres.stop(AbortSignal.abort());
    rmSync(directory, { recursive: true, force: true });
  }
}

/** As the ways write bytes. */
const encodedLast = (['base64', 'hex'] as const).map(encoding => Buffer.from(lastMessage).toString(encoding));
const hasLast = (text: string): boolean => encodedLast.some(last => text.includes(last));
/** In events that are strings of JSON in lines of JSON. */
const hasLastRow = (text: string): boolean => text.includes('\\"snapshot\\":\\"last\\"');

function hasEvent(engine: Debezium, file: string, isThere: (text: string) => boolean): boolean {
  const failure = engine.failed();
  if (failure !== undefined) throw new Error(`Debezium has ended: ${failure}`);
  return existsSync(file) && isThere(readFileSync(file, 'utf8'));
}

/** Returns the URL of the one to be captured; the log is in another, whose changes are nobody's. */
async function createDatabases(serverUrl: string): Promise<string> {
  const server = new pg.Client({ connectionString: serverUrl });
  await server.connect();
  await server.query('CREATE DATABASE source');
  await server.end();
  const url = new URL(serverUrl);
  url.pathname = '/source';
  return url.href;
}

interface CaptureShown {
  readonly name: string;
  readonly state: string;
  readonly reason?: string;
  readonly snapshots: readonly { readonly state: string }[];
}

async function startMillrace(directory: string, logUrl: string, sourceUrl: string, ways: readonly Way[]) {
  const capture = Object.fromEntries(
    ways.map(({ name, definition }) => [
      name,
      { source: 'env:SOURCE_URL', tables: ['public.*'], snapshot: 'never', partitions: 1, ...definition },
    ]),
  );
  const config = join(directory, 'millrace.yaml');
  writeFileSync(config, JSON.stringify({ capture }));
  const millrace = new Millrace([`--config=${config}`, '--log-level=warn'], {
    env: { MILLRACE_DATABASE_URL: logUrl, SOURCE_URL: sourceUrl },
  });
  await millrace.ready();
  await until('captures that stream, and have read their tables', async () => {
    const answer = await fetch(`${millrace.http}/api/captures`);
    const captures = (await answer.json()) as CaptureShown[];
    const failed = captures.find(({ state }) => state === 'failed');
    if (failed) throw new Error(`capture ${failed.name} has failed: ${failed.reason}`);
    const isReady = ({ state, snapshots }: CaptureShown) =>
      state === 'streaming' && snapshots.every(snapshot => snapshot.state === 'done');
    return ways.every(({ name }) => captures.some(each => each.name === name && isReady(each)));
  });
  return millrace;
}

function startEngine(directory: string, sourceUrl: string, { name, properties }: Way): Promise<Debezium> {
  const { hostname, port, username, password, pathname } = new URL(sourceUrl);
  return startDebezium({
    directory,
    heap: '512m',
    to: `file:${join(directory, 'events.ndjson')}`,
    properties: {
      'database.hostname': hostname,
      'database.port': port,
      'database.user': decodeURIComponent(username),
      'database.password': decodeURIComponent(password),
      'database.dbname': pathname.slice(1),
      'slot.name': `debezium_${name}`,
      'publication.name': 'everything',
      'publication.autocreate.mode': 'disabled',
      'topic.prefix': name,
      'snapshot.mode': 'no_data',
      'skipped.operations': 'none',
      // Else Connect writes a column's default where the row has NULL.
      'key.converter.replace.null.with.default': 'false',
      'value.converter.replace.null.with.default': 'false',
      ...properties,
    },
  });
}

/** Everything in the topics of a prefix, once its message topic has the last message. */
async function readTopics(bootstrap: string, prefix: string): Promise<CapturedEvent[]> {
  const kafka = connect(bootstrap);
  const consumer = kafka.consumer({ groupId: `differ-${prefix}` });
  const events: CapturedEvent[] = [];
  let last = false;
  await consumer.connect();
  await consumer.subscribe({ topics: [`${prefix}.message`], fromBeginning: true });
  const take = (topic: string, { key, value, headers = {} }: ConsumedMessage) => {
    const text = (bytes: Buffer | string | null | undefined) => bytes?.toString() ?? null;
    events.push({
      topic,
      key: text(key),
      value: text(value),
      headers: Object.entries(headers).map(([name, bytes]) => [name, text(bytes as Buffer)]),
    });
  };
  await consumer.run({
    eachMessage: async ({ message }) => {
      if (hasLast(String(message.value))) last = true;
    },
  });
  await until(`the last event of Millrace ${prefix}`, () => last, deadlineMs);
  await consumer.stop();
  // Whatever was committed before the last change is in its topic.
  const admin = kafka.admin();
  await admin.connect();
  const topics = (await admin.listTopics()).filter(topic => topic.startsWith(`${prefix}.`));
  let missing = 0;
  for (const topic of topics) {
    for (const { high } of await admin.fetchTopicOffsets(topic)) missing += Number(high);
  }
  await admin.disconnect();
  await consumer.disconnect();
  const reader = kafka.consumer({ groupId: `differ-${prefix}-all` });
  await reader.connect();
  await reader.subscribe({ topics, fromBeginning: true });
  await reader.run({
    eachMessage: async ({ topic, message }) => {
      take(topic, message as ConsumedMessage);
      missing--;
    },
  });
  await until(`all of ${prefix}`, () => missing === 0, deadlineMs);
  await reader.disconnect();
  return events;
}

interface ConsumedMessage {
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers?: Readonly<Record<string, unknown>>;
}
