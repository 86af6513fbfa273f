// Producers write while Millrace, its PostgreSQL and the sinks' own connections are killed; then each table is held against
// its topic: rows are the topic's fold, copied rows are there once each, and records that fit nowhere are once in the dead
// letters.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { readTopic, textOf } from '../read-topic.ts';
import { type Random, randomFrom } from './random.ts';
import { TestServer } from './server.ts';
import { endSessions, eventually, strikeServer } from './strike.ts';

export interface SinkRounds {
  readonly seed: number;
  readonly rounds: number;
  readonly say?: (line: string) => void;
}

export interface SinkRoundsResult {
  readonly records: number;
  readonly deadLetters: number;
}

const keys = 500;
const partitions = 4;
const config = `sinks:
  folded:
    topics: [folded]
    delete: true
    errors: dead-letter
    batchRows: 400
    lingerMs: 5
  copied:
    topics: [copied]
    mode: insert
    key: none
    columns: {kafka_partition: partition, kafka_offset: offset}
    batchRows: 400
    lingerMs: 5
`;
// No unique key in the way: a row that is written twice is there twice.
const setup = `
  CREATE TABLE folded (id int PRIMARY KEY, n int NOT NULL CHECK (n >= 0), note varchar(20));
  CREATE TABLE copied (kafka_partition int, kafka_offset bigint, n int)`;

const faults = ['broker', 'broker', 'postgres', 'postmaster', 'backend', 'sinks', 'both', 'stop'] as const;

/** Throws where a table is not what its topic says. */
export async function sinkRounds({ seed, rounds, say = () => {} }: SinkRounds): Promise<SinkRoundsResult> {
  const random = randomFrom(seed);
  const directory = mkdtempSync(join(tmpdir(), 'millrace-sink-rounds-'));
  const file = join(directory, 'millrace.yaml');
  writeFileSync(file, config);
  const server = await TestServer.start({
    settings: { config: file, 'log.level': 'warn', 'num.partitions': `${partitions}` },
  });
  try {
    const client = await server.sql();
    await client.query(setup);
    await client.end();
    let producing = true;
    const producers = ['folded', 'copied'].map((topic, i) =>
      produce(server.address, topic, randomFrom(seed + i + 1), () => producing),
    );
    for (let round = 0; round < rounds; round++) {
      await delay(100 + random.below(900)); // when to kill: nothing is waited for
      const fault = random.pick(faults);
      say(`round ${round}: ${fault}`);
      await strike(server, fault, random);
    }
    await delay(300);
    producing = false;
    await Promise.all(producers);
    return await check(server);
  } finally {
    await server.remove();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function strike(server: TestServer, fault: (typeof faults)[number], random: Random): Promise<void> {
  if (fault !== 'sinks') return strikeServer(server, fault, random);
  await endSessions(server, `application_name = 'millrace sink'`);
}

/** Until it is told to stop; what is not acknowledged may be there or not: the topic itself says. */
async function produce(address: string, topic: string, random: Random, goOn: () => boolean): Promise<void> {
  const kafka = new kafkajs.Kafka({
    brokers: [address],
    retry: { retries: 3, initialRetryTime: 50, maxRetryTime: 300 },
    logLevel: kafkajs.logLevel.NOTHING,
  });
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  let n = 0;
  while (goOn()) {
    try {
      await producer.connect();
      while (goOn()) {
        const messages = Array.from({ length: 20 + random.below(200) }, () => message(topic, random, n++));
        await producer.send({ topic, acks: -1, messages });
      }
    } catch {
      await delay(50);
    }
  }
  await producer.disconnect().catch(() => {});
}

function message(topic: string, random: Random, n: number): kafkajs.Message {
  if (topic === 'copied') return { value: JSON.stringify({ n }) };
  const key = JSON.stringify({ id: random.below(keys) });
  const kind = random.below(200);
  if (kind < 20) return { key, value: null };
  // What Millrace finds out, and what only PostgreSQL does.
  if (kind === 20) return { key, value: JSON.stringify({ n: 'none', note: `${n}` }) };
  if (kind === 21) return { key, value: JSON.stringify({ n: -1, note: `${n}` }) };
  if (kind === 22) return { key, value: JSON.stringify({ n, note: 'longer than twenty characters' }) };
  return { key, value: JSON.stringify({ n, note: kind % 2 ? null : `${n}` }) };
}

const isBad = (value: string): boolean => {
  const { n, note } = JSON.parse(value) as { n: unknown; note: string | null };
  return typeof n !== 'number' || n < 0 || (note?.length ?? 0) > 20;
};

interface Stored {
  readonly partition: number;
  readonly offset: string;
  readonly key: string | null;
  readonly value: string | null;
}

async function check(server: TestServer): Promise<SinkRoundsResult> {
  for (const deadline = Date.now() + 240_000; ; await delay(100)) {
    const behind = await eventually(server, async client => {
      const { rows } = await client.query<{ behind: number }>(
        `SELECT count(*)::int AS behind FROM kafka.partition_offsets p JOIN kafka.topics t ON t.name = p.topic
         LEFT JOIN kafka.consumer_offsets o ON o.topic_id = t.topic_id AND o.partition_id = p.partition AND o.group_id = 'sink-' || t.name
         WHERE p.topic IN ('folded', 'copied') AND coalesce(o.committed_offset, 0) < p.high_watermark`,
      );
      return rows[0]!.behind;
    });
    if (behind === 0) break;
    if (Date.now() > deadline) throw new Error(`the sinks never caught up: ${server.log}`);
  }
  return eventually(server, async client => {
    const read = async (topic: string): Promise<Stored[]> =>
      (await readTopic(client, topic)).map(({ partition, offset, key, value }) => ({
        ...{ partition, offset: String(offset) },
        ...{ key: textOf(key), value: textOf(value) },
      }));
    const folded = new Map<number, string>();
    const bad = new Set<string>();
    /** Bad records that only PostgreSQL finds, and that a later one of the same key replaces: it may never see them. */
    const replaced = new Set<string>();
    const lastOf = new Map<number, string>();
    const records = await read('folded');
    for (const { partition, offset, key, value } of records) {
      const { id } = JSON.parse(key!) as { id: number };
      const before = lastOf.get(id);
      if (before !== undefined) replaced.add(before);
      lastOf.delete(id);
      if (value === null) folded.delete(id);
      else if (isBad(value)) {
        bad.add(`${partition} ${offset}`);
        if (!value.includes('"none"')) lastOf.set(id, `${partition} ${offset}`);
      } else folded.set(id, value);
    }
    const { rows: table } = await client.query<{ id: number; n: number; note: string | null }>('SELECT * FROM folded');
    assert.deepEqual(
      table.map(({ id, n, note }) => `${id} ${JSON.stringify({ n, note })}`).toSorted(),
      Array.from(folded, ([id, value]) => `${id} ${value}`).toSorted(),
      'the table is not the fold of its topic',
    );
    const { rows: letters } = await client.query<{ place: string }>(
      `SELECT (SELECT string_agg(convert_from(h.value, 'UTF8'), ' ' ORDER BY h.key DESC) FROM unnest(headers) h
               WHERE h.key IN ('__connect.errors.partition', '__connect.errors.offset')) AS place
       FROM kafka.messages WHERE topic = 'folded.dead-letter'`,
    );
    const places = letters.map(({ place }) => place);
    assert.equal(new Set(places).size, places.length, 'a record is in the dead letters twice');
    assert.deepEqual(
      places.filter(place => !bad.has(place)),
      [],
      'good records are in the dead letters',
    );
    assert.deepEqual(
      [...bad].filter(place => !replaced.has(place) && !places.includes(place)),
      [],
      'bad records are not in the dead letters',
    );
    const copied = await read('copied');
    const { rows: lines } = await client.query<{ place: string }>(
      `SELECT kafka_partition || ' ' || kafka_offset || ' ' || n AS place FROM copied`,
    );
    assert.deepEqual(
      lines.map(({ place }) => place).toSorted(),
      copied.map(({ partition, offset, value }) => `${partition} ${offset} ${JSON.parse(value!).n}`).toSorted(),
      'copied rows are not the topic’s records, once each',
    );
    return { records: records.length + copied.length, deadLetters: places.length };
  });
}
