// Producers write while Millrace, its PostgreSQL and the target of a mirror are killed; then both sides are held against each
// other: every record of the source is in the target once, at its offset, and nothing else.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePorts, startKafka } from '../../compat/kafka/kafka.ts';
import { createTopic } from '../../src/client/admin.ts';
import { compareMirror, type Difference, type ToldPartition, type ToldRange } from '../../src/mirror/compare.ts';
import { recompress } from '../../src/protocol/compression.ts';
import { buildBatch } from '../../src/protocol/records.ts';
import { clusterAt, produce } from '../mirror-rig.ts';
import { type Random, randomFrom } from './random.ts';
import { TestServer } from './server.ts';
import { strikeServer } from './strike.ts';

export interface MirrorRounds {
  readonly seed: number;
  readonly rounds: number;
  readonly into: 'millrace' | 'kafka';
  readonly say?: (line: string) => void;
}

interface Target {
  readonly address: string;
  /** kill -9, and started again. */
  strike(): Promise<void>;
  remove(): Promise<void>;
}

const partitions = 3;
const topic = 'load';
const deadlineMs = 120_000;
const faults = ['broker', 'target', 'postgres', 'target', 'backend', 'both', 'stop', 'all'] as const;

/** Returns how many records there were. Throws where the two sides differ. */
export async function mirrorRounds({ seed, rounds, into, say = () => {} }: MirrorRounds): Promise<bigint> {
  const random = randomFrom(seed);
  const directory = mkdtempSync(join(tmpdir(), 'millrace-mirror-rounds-'));
  const target = await (into === 'kafka' ? kafkaTarget(directory) : millraceTarget());
  try {
    const file = join(directory, 'millrace.yaml');
    writeFileSync(file, `mirror: {copy: {target: {bootstrap: "${target.address}"}, topics: [${topic}]}}\n`);
    const source = await TestServer.start({ settings: { config: file, 'log.level': 'warn' } });
    try {
      return await drill(source, target, random, rounds, say);
    } finally {
      await source.remove();
    }
  } finally {
    await target.remove();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function drill(
  source: TestServer,
  target: Target,
  random: Random,
  rounds: number,
  say: (line: string) => void,
): Promise<bigint> {
  const here = clusterAt(source.address);
  const there = clusterAt(target.address);
  let producing = true;
  try {
    await createTopic(here, { name: topic, partitionCount: partitions, config: { 'compression.type': 'producer' } });
    const load = write(here, random, () => producing);
    for (let round = 0; round < rounds; round++) {
      await delay(100 + random.below(900)); // when to kill: nothing is waited for
      const fault = random.pick(faults);
      say(`round ${round}: ${fault}`);
      await strike(source, target, fault, random);
    }
    await delay(200);
    producing = false;
    await load;
    const { told, ranges } = await settled(source);
    const found: Difference[] = [];
    const onDifference = (difference: Difference): unknown => found.length < 10 && found.push(difference);
    const compared = await compareMirror({ source: here, target: there, partitions: told, ranges, onDifference });
    assert.deepEqual([compared.differences, compared.foreign, found], [0n, 0n, []]);
    for (const { sourceOffset, targetOffset } of ranges) assert.equal(sourceOffset, targetOffset);
    assert.equal(ranges.length, told.length, 'offsets are not the same throughout');
    return compared.records;
  } finally {
    producing = false;
    here.close();
    there.close();
  }
}

/** What is not acknowledged may be there or not: the topic itself says. */
async function write(cluster: ReturnType<typeof clusterAt>, random: Random, goOn: () => boolean): Promise<void> {
  for (let made = 0; goOn(); ) {
    const records = Array.from({ length: 1 + random.below(50) }, () => {
      made++;
      const value =
        random.below(10) === 0 ? null : Buffer.concat([Buffer.from(`${made} `), random.bytes(random.below(200))]);
      return { timestamp: BigInt(Date.now()), key: Buffer.from(`k${made % 100}`), value };
    });
    const batch = await recompress(buildBatch({ records }), random.below(5), { maxBytes: 2 ** 24 });
    try {
      await produce(cluster, topic, random.below(partitions), batch);
    } catch {
      await delay(20);
    }
  }
}

async function strike(
  source: TestServer,
  target: Target,
  fault: (typeof faults)[number],
  random: Random,
): Promise<void> {
  if (fault === 'target') return target.strike();
  if (fault !== 'all') return strikeServer(source, fault, random);
  await source.killBroker();
  await target.strike();
  await source.start();
}

/** Once everything has been copied. */
async function settled(source: TestServer): Promise<{ told: ToldPartition[]; ranges: ToldRange[] }> {
  const ask = async <T>(path: string): Promise<T> =>
    (await (await fetch(`http://127.0.0.1:${source.httpPort}/api/mirrors/copy${path}`)).json()) as T;
  for (const deadline = Date.now() + deadlineMs; ; await delay(100)) {
    try {
      const status = await ask<{ state: string; lag: number; partitions: ToldPartition[] }>('');
      if (status.state === 'failed') throw new assert.AssertionError({ message: JSON.stringify(status) });
      if (status.state === 'running' && status.lag === 0 && status.partitions.length === partitions) {
        return { told: status.partitions, ranges: await ask<ToldRange[]>('/offsets') };
      }
      if (Date.now() > deadline)
        throw new assert.AssertionError({ message: `never copied: ${JSON.stringify(status)}` });
    } catch (error) {
      if (error instanceof assert.AssertionError || Date.now() > deadline) throw error;
    }
  }
}

async function millraceTarget(): Promise<Target> {
  const server = await TestServer.start({ settings: { 'log.level': 'warn' } });
  return {
    address: server.address,
    async strike() {
      await server.killBroker();
      await server.start();
    },
    remove: () => server.remove(),
  };
}

async function kafkaTarget(directory: string): Promise<Target> {
  const [port] = await freePorts(1);
  const start = () => startKafka({ port: port!, dataDir: join(directory, 'kafka'), heap: '400M' });
  let kafka = await start();
  return {
    address: kafka.bootstrap,
    async strike() {
      process.kill(kafka.pid, 'SIGKILL');
      await kafka.stop();
      kafka = await start();
    },
    remove: () => kafka.stop(),
  };
}
