// Producers write to a Kafka, some in transactions that they commit or abort, while it, the Millrace that mirrors it and its
// PostgreSQL are killed. Then a group moves over while the load goes on, and both sides are held against each other: every
// record of the source is here once, at its offset, and the group has had each once.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { createTopic, latest, listOffsets } from '../../src/client/admin.ts';
import type { Cluster } from '../../src/client/cluster.ts';
import { compareMirror, type Difference, type ToldPartition, type ToldRange } from '../../src/mirror/compare.ts';
import { clusterAt } from '../mirror-rig.ts';
import { writeBatches } from './mirror-load.ts';
import { type Remote, withMirror } from './mirror-remote.ts';
import { type Random, randomFrom } from './random.ts';
import type { TestServer } from './server.ts';
import { strikeServer } from './strike.ts';

export interface MirrorFromRounds {
  readonly seed: number;
  readonly rounds: number;
  readonly from: 'millrace' | 'kafka';
  readonly say?: (line: string) => void;
}

const partitions = 3;
const topic = 'load';
const group = 'workers';
/** What waits for a copy that is behind waits long on a machine that does much else. */
const deadlineMs = 600_000;
const faults = ['broker', 'source', 'postgres', 'source', 'backend', 'both', 'stop', 'all'] as const;

/** What the group has had. */
interface Seen {
  readonly ids: string[];
  readonly partitions: Set<number>;
}

/** What became of transactions, as far as they were told. */
interface Ledger {
  readonly committed: Set<string>;
  readonly aborted: Set<string>;
}

/** Returns how many records there were. Throws where the two sides differ. */
export function mirrorFromRounds(of: MirrorFromRounds): Promise<bigint> {
  const mirror = (address: string) => `copy: {source: {bootstrap: "${address}", metadataMs: 500}, topics: [${topic}]}`;
  return withMirror(of.from, mirror, (target, source) => drill(source, target, of));
}

async function drill(source: Remote, target: TestServer, of: MirrorFromRounds): Promise<bigint> {
  const { rounds, from, say = () => {} } = of;
  const random = randomFrom(of.seed);
  const there = clusterAt(source.address);
  const here = clusterAt(target.address);
  const ledger: Ledger = { committed: new Set(), aborted: new Set() };
  const seen: Seen = { ids: [], partitions: new Set() };
  let producing = true;
  try {
    await createTopic(there, { name: topic, partitionCount: partitions, config: { 'compression.type': 'producer' } });
    const goOn = () => producing;
    const loads = [writeBatches(there, { topic, partitions, codecs: 2, random: randomFrom(of.seed + 1), goOn })];
    if (from === 'kafka') loads.push(transact(source.address, randomFrom(of.seed + 2), ledger, goOn));
    for (let round = 0; round < rounds; round++) {
      await delay(100 + random.below(900)); // when to kill: nothing is waited for
      const fault = random.pick(faults);
      say(`round ${round}: ${fault}`);
      await strike(source, target, fault, random);
    }
    await delay(200);
    await consume(source.address, seen, async () => seen.ids.length >= 200 && seen.partitions.size === partitions);
    const before = seen.ids.length;
    await moved(target);
    const rest = consume(target.address, seen, async () => !producing && seen.ids.length >= (await everything));
    await delay(500); // of both at once
    producing = false;
    const everything = Promise.all(loads).then(() => compared(there, here, target));
    await rest;
    const count = await everything;
    say(`${before} records read there, ${count - before} here`);
    assert.equal(seen.ids.length, count);
    assert.equal(new Set(seen.ids).size, count, 'the group has had a record twice');
    const had = new Set(seen.ids);
    assert.deepEqual(
      [...ledger.aborted].filter(id => had.has(id)),
      [],
    );
    assert.deepEqual(
      [...ledger.committed].filter(id => !had.has(id)),
      [],
    );
    return BigInt(count);
  } finally {
    producing = false;
    here.close();
    there.close();
  }
}

/** Once everything is here: how many records both sides have. */
async function compared(there: Cluster, here: Cluster, target: TestServer): Promise<number> {
  const all = Array.from({ length: partitions }, (_, partition) => partition);
  const ends = await listOffsets(there, topic, all, latest, 'read_committed');
  const { partitions: told } = await untilStatus(
    target,
    ({ partitions: of }) =>
      of.length === partitions && of.every(({ partition, nextOffset }) => BigInt(nextOffset) >= ends.get(partition)!),
  );
  const ranges = await ask<ToldRange[]>(target, '/offsets');
  const found: Difference[] = [];
  const onDifference = (difference: Difference): unknown => found.length < 10 && found.push(difference);
  const sums = await compareMirror({ source: there, target: here, partitions: told, ranges, onDifference });
  assert.deepEqual([sums.differences, sums.foreign, found], [0n, 0n, []]);
  assert.deepEqual(
    ranges.map(({ sourceOffset, targetOffset }) => [sourceOffset, targetOffset]),
    all.map(() => [0, 0]),
    'offsets are not the same throughout',
  );
  return Number(sums.records);
}

async function strike(
  source: Remote,
  target: TestServer,
  fault: (typeof faults)[number],
  random: Random,
): Promise<void> {
  if (fault === 'source') return source.strike();
  if (fault !== 'all') return strikeServer(target, fault, random);
  await target.killBroker();
  await source.strike();
  await target.start();
}

const clientAt = (address: string): kafkajs.Kafka =>
  new kafkajs.Kafka({
    brokers: [address],
    logLevel: kafkajs.logLevel.NOTHING,
    retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 20 },
  });

/** Whatever fails, the next producer of the same id ends what was left open. */
async function transact(address: string, random: Random, ledger: Ledger, goOn: () => boolean): Promise<void> {
  for (let made = 0; goOn(); ) {
    const producer = clientAt(address).producer({
      transactionalId: 'writer',
      maxInFlightRequests: 1,
      idempotent: true,
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    });
    try {
      await producer.connect();
      while (goOn()) {
        const transaction = await producer.transaction();
        const ids: string[] = [];
        for (let sends = 1 + random.below(3); sends > 0; sends--) {
          const messages = Array.from({ length: 1 + random.below(10) }, () => ({ value: `t${made++}` }));
          ids.push(...messages.map(({ value }) => value));
          await transaction.send({ topic, messages, compression: kafkajs.CompressionTypes.GZIP });
        }
        const outcome = random.below(3) === 0 ? 'abort' : 'commit';
        await transaction[outcome]();
        for (const id of ids) (outcome === 'abort' ? ledger.aborted : ledger.committed).add(id);
      }
    } catch {
      await delay(20);
    } finally {
      await producer.disconnect().catch(() => {});
    }
  }
}

/** As the group; it commits what it has had when it leaves. */
async function consume(address: string, seen: Seen, enough: () => Promise<boolean>): Promise<void> {
  const consumer = clientAt(address).consumer({ groupId: group, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message, partition }) => {
      seen.ids.push(message.headers?.id?.toString() ?? message.value!.toString());
      seen.partitions.add(partition);
    },
  });
  const deadline = Date.now() + deadlineMs;
  while (!(await enough())) {
    if (Date.now() > deadline) throw new Error(`the group has had ${seen.ids.length} records, and no more come`);
    await delay(50);
  }
  await consumer.disconnect();
}

/** Until the group's offsets are here, as they are there. */
async function moved(target: TestServer): Promise<void> {
  for (const deadline = Date.now() + deadlineMs; ; await delay(50)) {
    const states = await ask<{ group: string; state: string; partition: number }[]>(target, '/groups', 'POST').catch(
      () => [],
    );
    if (states.filter(({ group: id, state }) => id === group && state === 'synced').length === partitions) break;
    if (Date.now() > deadline) throw new Error(`the group's offsets do not come: ${JSON.stringify(states)}`);
  }
  // What it had committed last may have lain beyond the copy.
  const { partitions: told } = await untilStatus(target, ({ lag }) => lag === 0);
  assert.equal(told.length, partitions);
  await ask(target, '/groups', 'POST');
}

interface Told {
  readonly state: string;
  readonly lag: number;
  readonly partitions: readonly (ToldPartition & { readonly nextOffset: number })[];
}

async function ask<T>(target: TestServer, path: string, method = 'GET'): Promise<T> {
  const response = await fetch(`http://127.0.0.1:${target.httpPort}/api/mirrors/copy${path}`, { method });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as T;
}

async function untilStatus(target: TestServer, condition: (status: Told) => boolean): Promise<Told> {
  for (const deadline = Date.now() + deadlineMs; ; await delay(50)) {
    const status = await ask<Told>(target, '').catch(() => undefined);
    assert.notEqual(status?.state, 'failed', JSON.stringify(status));
    if (status?.state === 'running' && condition(status)) return status;
    if (Date.now() > deadline) throw new Error(`never so: ${JSON.stringify(status)}\n${target.log}`);
  }
}
