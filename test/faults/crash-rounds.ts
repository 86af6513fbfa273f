// The crash loop: clients write, something is killed at a random instant, the server comes back, and the log must
// hold every acknowledged record once, in order, without holes; what a reader has seen must never change.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { assertHolds, readContents, selectContents } from './audit.ts';
import { createTopic } from './kafka.ts';
import { Acknowledgements, kafkajsWriter, type Load, pipelinedWriter, TailReader, type Task, Tasks } from './load.ts';
import { type Random, randomFrom } from './random.ts';
import { ServerEndedError, TestServer } from './server.ts';
import { WireClient } from './wire.ts';

const partitions = 4;
const longestLoadMs = 1000;
const longestRecoveryMs = 400;
/** What has not gone on for so long hangs, however slow the disk: then it is told what there is, instead of waiting on. */
const hangMs = 180_000;

const victims = ['broker', 'postgres', 'broker and postgres', 'postmaster', 'a backend'] as const;
type Victim = (typeof victims)[number];

export interface CrashOptions {
  readonly rounds: number;
  readonly seed: number;
  readonly say: (line: string) => void;
  /** Writers besides the built-in ones. */
  readonly writers?: readonly ((load: Load) => Task)[];
}

export async function runCrashRounds({ rounds, seed, say, writers = [] }: CrashOptions): Promise<void> {
  const random = randomFrom(seed);
  const server = await TestServer.start();
  const tasks = new Tasks();
  try {
    const acknowledged = new Acknowledgements();
    const load: Load = { port: server.port, topic: 'crash', partitions, random, acknowledged };
    const client = await WireClient.connect(server.port);
    await createTopic(client, load.topic, partitions);
    client.close();

    const reader = tasks.add(new TailReader(load));
    for (let i = 0; i < partitions; i++) tasks.add(pipelinedWriter(load, i, i % 2 ? [1] : [1, 3, 20]));
    tasks.add(kafkajsWriter(load, 'kafkajs-batches', [10, 50, 100]));
    tasks.add(kafkajsWriter(load, 'kafkajs-singles', [1]));
    for (const start of writers) tasks.add(start(load));

    for (let round = 1; round <= rounds; round++) {
      await tasks.or(orHang(acknowledged.more(100), 'before a round'));
      await delay(random.below(longestLoadMs));
      const struck = await tasks.or(orHang(strike(server, random), 'a start'));
      await tasks.or(orHang(acknowledged.more(100), `after killing ${struck.join(', then ')}`));
      const settled = [...acknowledged.all];
      const contents = await tasks.or(readContents(server.port, load.topic, partitions));
      assertHolds(contents, settled);
      reader.assertAgrees(contents);
      say(`round ${round}: killed ${struck.join(', then ')}; ${settled.length} acknowledged records are there once`);
    }
    await orHang(tasks.stop(), 'for the writers to end');
    const contents = await readContents(server.port, load.topic, partitions);
    assertHolds(contents, acknowledged.all);
    reader.assertAgrees(contents);
    const total = contents.reduce((sum, ids) => sum + ids.length, 0);
    assert.equal(total, acknowledged.all.length, 'in the end every record was acknowledged, and no other is there');
    const sql = await server.sql();
    assert.deepEqual(await selectContents(sql, load.topic, partitions), contents);
    await sql.end();
    assert.equal(await server.stop(), 0);
    say(`${total} records in ${partitions} partitions, the same to clients and to SQL`);
  } catch (error) {
    say(server.log);
    say(server.postgresState());
    throw error;
  } finally {
    tasks.abandon();
    await server.remove();
  }
}

async function orHang<T>(promise: Promise<T>, when: string): Promise<T> {
  const done = new AbortController();
  const hang = delay(hangMs, undefined, { signal: done.signal }).then(() => {
    throw new Error(`nothing went on for ${hangMs / 1000} s ${when}`);
  });
  return Promise.race([promise, hang]).finally(() => done.abort());
}

/** Kills, sometimes again while the server recovers, and sees that it runs in the end. */
async function strike(server: TestServer, random: Random): Promise<Victim[]> {
  const struck: Victim[] = [];
  const starting: Promise<void>[] = [];
  for (;;) {
    const victim = random.pick(victims);
    struck.push(victim);
    await kill(server, victim, random);
    if (!server.running) starting.push(startAgain(server, () => struck.length));
    if (struck.length === 3 || random.below(3) > 0) break;
    await delay(random.below(longestRecoveryMs));
  }
  await Promise.all(starting);
  return struck;
}

/** A broker that is killed is started by us; the embedded PostgreSQL by its broker. */
async function kill(server: TestServer, victim: Victim, random: Random): Promise<void> {
  const brokerFirst = random.below(2) === 0;
  if (victim === 'postgres' || (victim === 'broker and postgres' && !brokerFirst)) server.killPostgres();
  if (victim === 'broker' || victim === 'broker and postgres') await server.killBroker();
  if (victim === 'broker and postgres' && brokerFirst) server.killPostgres();
  if (victim === 'postmaster') server.killPostmaster();
  if (victim === 'a backend') server.killBackend(random);
}

/** A start may fail where PostgreSQL is killed under it: then, and only then, it may be tried again. */
async function startAgain(server: TestServer, strikes: () => number): Promise<void> {
  for (;;) {
    const before = strikes();
    try {
      return await server.start();
    } catch (error) {
      if (!(error instanceof ServerEndedError) || strikes() === before) throw error;
      if (error.killed) return; // it was struck itself, and whoever did that starts it
    }
  }
}
