// Producers write and a group reads while Millrace, its PostgreSQL and the target of a mirror are killed; after half of the
// rounds the group moves to the target. Then both sides are held against each other: every record of the source is in the
// target once, at its offset, and nothing else; what was acknowledged is there once, and the group has had each record once.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { createTopic } from '../../src/client/admin.ts';
import { compareMirror, type Difference, type ToldPartition, type ToldRange } from '../../src/mirror/compare.ts';
import { clusterAt } from '../mirror-rig.ts';
import { digestsOf, GroupReader } from './group-reader.ts';
import { Acknowledgements, pipelinedWriter } from './load.ts';
import { writeBatches } from './mirror-load.ts';
import { type Remote, withMirror } from './mirror-remote.ts';
import { type Random, randomFrom } from './random.ts';
import type { TestServer } from './server.ts';
import { strikeServer } from './strike.ts';

export interface MirrorRounds {
  readonly seed: number;
  readonly rounds: number;
  readonly into: 'millrace' | 'kafka';
  readonly say?: (line: string) => void;
}

interface Status {
  readonly state: string;
  readonly lag: number;
  readonly partitions: ToldPartition[];
}

interface GroupPlace {
  readonly group: string;
  readonly state: string;
  readonly partition: number;
  readonly sourceOffset: number;
}

const partitions = 3;
/** Of the idempotent producer, alone; the others are written to by one that is not. */
const pipelined = 2;
const topic = 'load';
const group = 'readers';
/** What waits for a copy that is behind waits long on a machine that does much else. */
const deadlineMs = 600_000;
const faults = ['broker', 'target', 'postgres', 'target', 'backend', 'both', 'stop', 'all'] as const;

/** Returns how many records there were. Throws where the two sides differ. */
export function mirrorRounds({ seed, rounds, into, say = () => {} }: MirrorRounds): Promise<bigint> {
  const mirror = (address: string) => `copy: {target: {bootstrap: "${address}"}, topics: [${topic}]}`;
  return withMirror(into, mirror, (source, target) => drill(source, target, randomFrom(seed), rounds, say));
}

async function drill(
  source: TestServer,
  target: Remote,
  random: Random,
  rounds: number,
  say: (line: string) => void,
): Promise<bigint> {
  const here = clusterAt(source.address);
  const there = clusterAt(target.address);
  const reader = new GroupReader(group, topic, partitions);
  let working = true;
  let reading = true;
  const begun: Promise<void>[] = [];
  /** It is awaited later, or not at all where something else fails before. */
  const begin = (work: Promise<void>): Promise<void> => {
    begun.push(work);
    work.catch(() => {});
    return work;
  };
  const acknowledged = new Acknowledgements();
  await createTopic(here, { name: topic, partitionCount: partitions, config: { 'compression.type': 'producer' } });
  const writer = pipelinedWriter({ port: source.port, topic, partitions, random, acknowledged }, pipelined, [1, 2]);
  try {
    const written = begin(writeBatches(here, { topic, partitions: pipelined, codecs: 5, random, goOn: () => working }));
    const produced = begin(writer.done);
    let read = begin(reader.read(here, () => reading));
    for (let round = 0; round < rounds; round++) {
      await delay(100 + random.below(900)); // when to kill: nothing is waited for
      const fault = random.pick(faults);
      say(`round ${round}: ${fault}`);
      await strike(source, target, fault, random);
      if (round !== rounds >> 1) continue;
      reading = false;
      await read;
      await moved(source, reader);
      say(`the group has had ${count(reader)} records, and goes on in the target`);
      reading = true;
      read = begin(reader.read(there, () => reading));
    }
    await delay(200);
    working = false;
    await written;
    writer.stop();
    await produced;
    const { told, ranges } = await settled(source);
    const found: Difference[] = [];
    const onDifference = (difference: Difference): unknown => found.length < 10 && found.push(difference);
    const compared = await compareMirror({ source: here, target: there, partitions: told, ranges, onDifference });
    assert.deepEqual([compared.differences, compared.foreign, found], [0n, 0n, []]);
    for (const { sourceOffset, targetOffset } of ranges) assert.equal(sourceOffset, targetOffset);
    assert.equal(ranges.length, told.length, 'offsets are not the same throughout');
    const ofWriter = ranges.find(({ partition }) => partition === pipelined)!;
    assert.equal(ofWriter.records, acknowledged.all.length, 'of the idempotent producer, acknowledged and there');
    await until(() => BigInt(count(reader)) >= compared.records, 'the group has not had all records');
    reading = false;
    await read;
    for (const { partition, records } of ranges) {
      assert.deepEqual(reader.processed[partition], await digestsOf(there, topic, partition, BigInt(records)));
    }
    return compared.records;
  } finally {
    working = false;
    reading = false;
    writer.abandon();
    here.close();
    there.close();
    await Promise.allSettled(begun);
  }
}

const count = ({ processed }: GroupReader): number => processed.reduce((sum, { length }) => sum + length, 0);

/** Once the target has the offsets of the group, which rests. */
async function moved(source: TestServer, reader: GroupReader): Promise<void> {
  await until(async () => {
    const groups = await ask<GroupPlace[]>(source, '/groups', 'POST');
    const synced = groups.filter(({ group: id, state }) => id === group && state === 'synced');
    return reader.processed.every(
      ({ length }, partition) =>
        length === 0 || synced.some(place => place.partition === partition && place.sourceOffset === length),
    );
  }, 'the offsets of the group did not come to the target');
}

async function strike(
  source: TestServer,
  target: Remote,
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
  const status = await until(async () => {
    const now = await ask<Status>(source, '');
    if (now.state === 'failed') throw new assert.AssertionError({ message: JSON.stringify(now) });
    return now.state === 'running' && now.lag === 0 && now.partitions.length === partitions && now;
  }, 'never copied');
  return { told: status.partitions, ranges: await ask<ToldRange[]>(source, '/offsets') };
}

/** What `condition` gives once it is something. Whatever it throws is of the fault before, but for an assertion. */
async function until<T>(condition: () => T | false | Promise<T | false>, otherwise: string): Promise<T> {
  for (const deadline = Date.now() + deadlineMs; ; await delay(100)) {
    try {
      const found = await condition();
      if (found) return found;
    } catch (error) {
      if (error instanceof assert.AssertionError || Date.now() > deadline) throw error;
    }
    if (Date.now() > deadline) throw new assert.AssertionError({ message: otherwise });
  }
}

async function ask<T>(source: TestServer, path: string, method = 'GET'): Promise<T> {
  const answer = await fetch(`http://127.0.0.1:${source.httpPort}/api/mirrors/copy${path}`, { method });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  return (await answer.json()) as T;
}
