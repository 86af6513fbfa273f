// A log and sinks of it in one process, for tests of sinks.
import { pino } from 'pino';
import { buildBatch, type NewRecord } from '../src/protocol/records.ts';
import { settingsWith } from '../src/runtime/config.ts';
import { readDefinition } from '../src/sink/definition.ts';
import { Sink, type SinkState, type SinkStatus } from '../src/sink/sink.ts';
import type { Log, LogOptions } from '../src/storage/log.ts';
import { serverDefaults } from '../src/storage/server-defaults.ts';
import { effectiveConfig } from '../src/storage/topic-config.ts';
import type { Topic, Topics } from '../src/storage/topics.ts';
import { createDatabase, type TestDatabase } from './database.ts';
import { openLog } from './open-log.ts';
import { headersOf, readTopic, textOf } from './read-topic.ts';

export interface Message {
  /** Strings and bytes as they are, null as null, anything else as JSON. */
  readonly key?: unknown;
  readonly value?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timestamp?: number;
}

export interface RunningSink {
  readonly states: SinkState[];
  status(): SinkStatus;
  /** Resolves in the state; rejects in `failed`, where that is not what is waited for. */
  reached(state: SinkState): Promise<SinkStatus>;
  /** Resolves when it has written everything that is in its topics. */
  caughtUp(): Promise<SinkStatus>;
  stop(): Promise<void>;
}

export interface SinkRig {
  readonly database: TestDatabase;
  readonly log: Log;
  readonly topics: Topics;
  query<Row extends object>(sql: string, values?: unknown[]): Promise<Row[]>;
  createTopic(name: string, partitions?: number): Promise<Topic>;
  send(topic: Topic, messages: readonly Message[], partition?: number): Promise<void>;
  start(name: string, definition: Readonly<Record<string, unknown>>): Promise<RunningSink>;
  /** A topic's records, by partition and offset. */
  records(topic: string): Promise<{ key: string | null; value: string | null; headers: Record<string, string> }[]>;
  remove(): Promise<void>;
}

export async function openSinkRig(options: Partial<LogOptions> = {}): Promise<SinkRig> {
  const database = await createDatabase();
  const { log, topics, createTopic } = await openLog(database, { writers: 2, ...options });
  const defaults = serverDefaults(settingsWith({}));
  const running: Sink[] = [];
  return {
    database,
    log,
    topics,
    createTopic,
    query: async (sql, values = []) => (await database.pool.query(sql, values)).rows,
    async send(topic, messages, partition = 0) {
      const records = messages.map(record);
      const { error } = await log.append(topic, log.partition(topic, partition)!, buildBatch({ records }), -1, false)
        .result;
      if (error !== 0) throw new Error(`append: ${error}`);
    },
    async start(name, definition) {
      const { rows } = await database.pool.query<{ id: number }>(
        `INSERT INTO kafka.sinks AS s (name) VALUES ($1)
         ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING sink_id AS id`,
        [name],
      );
      const states: SinkState[] = [];
      const waiting = new Set<() => void>();
      const sink = new Sink(
        {
          databaseUrl: database.url,
          pool: database.pool,
          log,
          topics,
          settingsOf: topic => effectiveConfig(topic, defaults),
          term: () => ({ brokerId: 1, epoch: log.epoch }),
          logger: pino({ level: process.env.MILLRACE_TEST_LOG ?? 'silent' }, pino.destination(2)),
        },
        {
          definition: readDefinition(name, { lingerMs: 0, ...definition }),
          sinkId: rows[0]!.id,
          onState: state => {
            states.push(state);
            for (const wake of waiting) wake();
            waiting.clear();
          },
        },
      );
      running.push(sink);
      sink.start();
      const failure = (status: SinkStatus) =>
        new Error(`the sink is ${status.state}: ${status.reason}; ${status.hint}`);
      return {
        states,
        status: () => sink.status(),
        async reached(state) {
          for (;;) {
            const status = sink.status();
            if (status.state === state) return status;
            if (status.state === 'failed') throw failure(status);
            await new Promise<void>(resolve => waiting.add(resolve));
          }
        },
        async caughtUp() {
          for (const deadline = Date.now() + 240_000; ; ) {
            const status = sink.status();
            if (status.state === 'running' && status.lag === 0n) return status;
            if (status.state === 'failed' || Date.now() > deadline) throw failure(status);
            await new Promise(resolve => setTimeout(resolve, 5));
          }
        },
        stop: () => sink.stop(),
      };
    },
    async records(topic) {
      const read = await readTopic(database.pool, topic);
      return read.map(record => ({
        key: textOf(record.key),
        value: textOf(record.value),
        headers: headersOf(record) as Record<string, string>,
      }));
    },
    async remove() {
      await Promise.all(running.map(sink => sink.stop()));
      await log.stop();
      await database.drop();
    },
  };
}

function record({ key, value, headers = {}, timestamp = 1_700_000_000_000 }: Message): NewRecord {
  return {
    timestamp: BigInt(timestamp),
    key: bytes(key),
    value: bytes(value),
    headers: Object.entries(headers).map(([name, text]) => ({ key: name, value: Buffer.from(text) })),
  };
}

function bytes(value: unknown): Buffer | null {
  if (value === null || value === undefined) return null;
  if (Buffer.isBuffer(value)) return value;
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
}
