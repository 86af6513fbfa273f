// Delivery with processes that are killed: the one that leads and fills the inbox, and one that only serves it. Producers
// send again what was not answered, clients come back with their last id; each has every event once and in order.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { createDatabase, type TestDatabase } from '../database.ts';
import { StreamClient } from '../deliver-rig.ts';
import { freePort } from '../free-port.ts';
import { Millrace } from '../millrace.ts';
import { eventually } from '../open-log.ts';

const subscribers = ['ada', 'bob', 'eve'];

/** As an EventSource: comes back with the id it had last, whatever happens. */
class Follower {
  readonly got: number[] = [];
  readonly #url: string;
  #id: string | undefined;
  #client: StreamClient | undefined;
  #closed = false;
  readonly gaps: string[] = [];

  constructor(url: string) {
    this.#url = url;
    void this.#run();
  }

  close(): void {
    this.#closed = true;
    this.#client?.close();
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      try {
        const headers: Record<string, string> = this.#id === undefined ? {} : { 'last-event-id': this.#id };
        const client = await StreamClient.open(this.#url, headers);
        this.#client = client;
        let taken = 0;
        const take = (): void => {
          for (const event of client.events.slice(taken)) {
            this.#id = event.id;
            if (event.type === 'gap') this.gaps.push(event.data);
            else this.got.push(Number(JSON.parse(event.data).n));
          }
          taken = client.events.length;
        };
        await client.until(() => {
          take();
          return this.#closed;
        });
      } catch {
        await delay(30);
      }
    }
  }
}

/** As a restart of PostgreSQL does, also to those that connect while it goes on. */
async function endSessions({ pool }: TestDatabase): Promise<void> {
  for (let again = 0; again < 3; again++) {
    await pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`,
    );
  }
}

test('over kill -9 of either process, and sessions that PostgreSQL ends, every client has every event once, in order', {
  timeout: 300_000,
}, async () => {
  const database = await createDatabase();
  const directory = mkdtempSync(join(tmpdir(), 'millrace-deliver-'));
  const config = join(directory, 'millrace.yaml');
  writeFileSync(config, 'deliver:\n  news:\n    topics: [events]\n    id: $.id\n');
  const [kafkaPort, leaderPort, otherPort] = [await freePort(), await freePort(), await freePort()];
  const flags = [`--database-url=${database.url}`, `--config=${config}`, '--log-level=warn'];
  const startLeader = () =>
    new Millrace([...flags, `--kafka=127.0.0.1:${kafkaPort}`, `--http=127.0.0.1:${leaderPort}`]).ready();
  const startOther = () => new Millrace([...flags, '--broker=false', `--http=127.0.0.1:${otherPort}`]).ready();
  let [leader, other] = [await startLeader(), await startOther()];
  const followers = new Map<string, Follower[]>();
  const sent = new Map(subscribers.map(name => [name, 0]));
  const kafka = new Kafka({
    brokers: [`127.0.0.1:${kafkaPort}`],
    logLevel: logLevel.NOTHING,
    retry: { initialRetryTime: 50, maxRetryTime: 300, retries: 200 },
  });
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, maxInFlightRequests: 1 });
  try {
    await producer.connect();
    const admin = kafka.admin();
    await admin.connect();
    await admin.createTopics({ topics: [{ topic: 'events', numPartitions: 3 }] });
    await admin.disconnect();
    for (const name of subscribers) {
      const urls = [leaderPort, otherPort].map(port => `http://127.0.0.1:${port}/v1/stream?subscriber=${name}`);
      followers.set(
        name,
        urls.map(url => new Follower(url)),
      );
    }
    let sending = true;
    const sender = (async () => {
      while (sending) {
        const messages = subscribers.flatMap(name =>
          Array.from({ length: 10 }, () => {
            const n = sent.get(name)!;
            sent.set(name, n + 1);
            return { key: name, value: JSON.stringify({ id: `${name}-${n}`, n }) };
          }),
        );
        // Sent again by kafkajs until it is answered: the log may have it twice, the inbox must not.
        await producer.send({ topic: 'events', messages });
        await delay(10);
      }
    })();
    const lowest = () => Math.min(...[...followers.values()].flat().map(({ got }) => got.length));
    for (const struck of ['leader', 'database', 'other', 'database', 'leader']) {
      const before = lowest();
      await eventually(() => lowest() > before + 100);
      if (struck === 'leader') {
        await leader.stop('SIGKILL');
        leader = await startLeader();
      } else if (struck === 'other') {
        await other.stop('SIGKILL');
        other = await startOther();
      } else await endSessions(database);
    }
    const before = lowest();
    await eventually(() => lowest() > before + 100);
    sending = false;
    await sender;
    for (const [name, both] of followers) {
      const count = sent.get(name)!;
      await eventually(() => both.every(({ got }) => got.length >= count));
      for (const { got, gaps } of both) {
        const wrong = got.findIndex((n, i) => n !== i);
        const around = got.slice(Math.max(0, wrong - 3), wrong + 12).join(' ');
        assert.equal(
          wrong,
          -1,
          `${name} has ${got.length} events of ${count}, at ${wrong}: ${around}; gaps ${gaps.join(' ')}`,
        );
        assert.equal(got.length, count);
        assert.deepEqual(gaps, []);
      }
    }
  } finally {
    for (const follower of [...followers.values()].flat()) follower.close();
    await producer.disconnect();
    await Promise.all([leader.stop('SIGKILL'), other.stop('SIGKILL')]);
    rmSync(directory, { recursive: true });
    await database.drop();
  }
});
