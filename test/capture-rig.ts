// A log and captures into it in one process, for tests of captures: their source may be another database or server.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Capture, type CaptureContext, type CaptureState, type CaptureStatus } from '../src/capture/capture.ts';
import { readDefinition } from '../src/capture/definition.ts';
import { PostgresClient } from '../src/postgres/client.ts';
import { settingsWith } from '../src/runtime/config.ts';
import { serverDefaults } from '../src/storage/server-defaults.ts';
import { effectiveConfig } from '../src/storage/topic-config.ts';
import { createDatabase, type TestDatabase } from './database.ts';
import { openLog } from './open-log.ts';
import { headersOf, readTopic, textOf } from './read-topic.ts';

export interface CapturedRecord {
  readonly partition: number;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: Readonly<Record<string, string | null>>;
}

export interface RunningCapture {
  /** What it has been in, oldest first. */
  readonly states: CaptureState[];
  status(): CaptureStatus;
  /** Resolves in the state; rejects in `failed`, where that is not what is waited for. */
  reached(state: CaptureState): Promise<CaptureStatus>;
  /** Stops it alone, also where its source cannot be reached. */
  halt(): Promise<void>;
  /** Returns how many tables are read again; undefined where it does not stream. */
  resnapshot(pattern: string): Promise<number | undefined>;
  /** Resolves when nobody reads its slot any more. */
  stop(): Promise<void>;
  /** Stops it, and drops its slot. */
  finish(): Promise<void>;
}

export interface CaptureRig {
  /** Holds the log. */
  readonly database: TestDatabase;
  /** What captures run in. */
  readonly context: CaptureContext;
  /** Slots are the whole server's: names are given an end of their own. */
  readonly suffix: string;
  /** Without a snapshot, unless the definition asks for one. */
  start(name: string, definition: Readonly<Record<string, unknown>>): RunningCapture;
  /** Of a topic, by partition and offset. */
  records(topic: string): Promise<CapturedRecord[]>;
  /** How many records a topic has, without reading them. */
  size(topic: string): Promise<number>;
  /** Resolves with the records once `condition` holds for them. */
  until(topic: string, condition: (records: CapturedRecord[]) => boolean): Promise<CapturedRecord[]>;
  /** Resolves once `condition` holds. */
  holds(condition: () => boolean): Promise<void>;
  remove(): Promise<void>;
}

const deadlineMs = 240_000;

export async function openRig(): Promise<CaptureRig> {
  const database = await createDatabase();
  const directory = mkdtempSync(join(tmpdir(), 'millrace-capture-'));
  const { log, topics } = await openLog(database, { writers: 2 });
  const defaults = serverDefaults(settingsWith({}));
  const suffix = Math.random().toString(36).slice(2, 10);
  const running: Capture[] = [];

  const context: CaptureContext = {
    databaseUrl: database.url,
    pool: database.pool,
    log,
    topics,
    settingsOf: topic => effectiveConfig(topic, defaults),
    term: () => ({ brokerId: 1, epoch: log.epoch }),
    defaultPartitions: 1,
    spoolDirectory: directory,
    logger: pino({ level: process.env.MILLRACE_TEST_LOG ?? 'silent' }, pino.destination(2)),
  };

  const records = async (topic: string): Promise<CapturedRecord[]> => {
    const read = await readTopic(database.pool, topic);
    return read.map(record => ({
      partition: record.partition,
      key: textOf(record.key),
      value: textOf(record.value),
      headers: headersOf(record),
    }));
  };
  return {
    database,
    context,
    suffix,
    records,
    async size(topic) {
      const { rows } = await database.pool.query<{ size: number }>(
        `SELECT coalesce(sum(next_offset), 0)::int AS size
         FROM kafka.log_ends(ARRAY(SELECT topic_id FROM kafka.topics WHERE name = $1))`,
        [topic],
      );
      return rows[0]!.size;
    },
    start(name, definition) {
      const own = { slot: `${name}_${suffix}`, publication: `${name}_${suffix}`, snapshot: 'never' };
      const read = readDefinition(name, { ...own, ...definition });
      const states: CaptureState[] = [];
      const waiting = new Set<() => void>();
      const capture = new Capture(context, {
        definition: read,
        tablesEveryMs: 50,
        onState: state => {
          states.push(state);
          for (const wake of waiting) wake();
          waiting.clear();
        },
      });
      running.push(capture);
      capture.start();
      const onSource = async (query: string): Promise<void> => {
        const client = new PostgresClient(read.source ?? database.url);
        await client.connect();
        await client.query(query, [read.slot]);
        await client.end();
      };
      return {
        states,
        status: () => capture.status(),
        resnapshot: pattern => capture.resnapshot(pattern),
        async reached(state) {
          for (;;) {
            const status = capture.status();
            if (status.state === state) return status;
            if (status.state === 'failed') throw new Error(`the capture failed: ${status.reason}; ${status.hint}`);
            await new Promise<void>(resolve => waiting.add(resolve));
          }
        },
        halt: () => capture.stop(),
        async stop() {
          await capture.stop();
          // Its walsender may not have noticed yet that nobody listens.
          await onSource(
            'SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1',
          );
        },
        async finish() {
          await this.stop();
          await onSource('SELECT pg_drop_replication_slot($1)');
        },
      };
    },
    async holds(condition) {
      for (const deadline = Date.now() + deadlineMs; !condition(); ) {
        if (Date.now() > deadline) {
          const states = running.map(capture => JSON.stringify(capture.status(), replaceBigint));
          throw new Error(`never so; ${states.join('\n')}`);
        }
        await new Promise(resolve => setTimeout(resolve, 20));
      }
    },
    async until(topic, condition) {
      for (const deadline = Date.now() + deadlineMs; ; ) {
        const found = await records(topic);
        if (condition(found)) return found;
        if (Date.now() > deadline) {
          const states = running.map(capture => JSON.stringify(capture.status(), replaceBigint));
          throw new Error(`never so in ${topic}, which has ${found.length} records; ${states.join('\n')}`);
        }
        await new Promise(resolve => setTimeout(resolve, 20));
      }
    },
    async remove() {
      await Promise.all(running.map(capture => capture.stop()));
      await log.stop();
      await database.drop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const replaceBigint = (_key: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value);
