// kcat 1.7.1 on librdkafka 2.0.2, as Debian 12 ships it. Usage: suite.ts HOST:PORT [part of a check's name]

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { bootstrap, type Check, execute, runSuite, unique } from '../suite.ts';

interface Envelope {
  topic: string;
  partition: number;
  offset: number;
  tstype: string;
  ts: number;
  headers?: (string | null)[];
  key: string | null;
  payload: string | null;
}

async function kcat(args: string[], input?: Buffer | string): Promise<Buffer> {
  const result = await execute('kcat', ['-b', bootstrap, ...args], input);
  if (result.status !== 0) throw new Error(`kcat ${args.join(' ')} exited with ${result.status}: ${result.stderr}`);
  return result.stdout;
}

const produce = (topic: string, input: Buffer | string, ...args: string[]) =>
  kcat(['-P', '-t', topic, '-p', '0', ...args], input);

const consume = (topic: string, ...args: string[]) => kcat(['-C', '-q', '-e', '-t', topic, '-p', '0', ...args]);

async function envelopes(topic: string, ...args: string[]): Promise<Envelope[]> {
  const text = (await consume(topic, '-J', ...args)).toString();
  return text
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as Envelope);
}

/** Distinct lines that compress, with some that are not ASCII. */
const lines = (count: number, word = 'line') =>
  Array.from({ length: count }, (_, i) => `${word} ${i} ${'ab'.repeat(i % 40)} żółć ${i * i}\n`).join('');

const codec = (name: string): Check => ({
  name: `produce and consume ${name}`,
  run: async () => {
    const topic = unique(`kcat-${name}`);
    const sent = lines(3000, name);
    await produce(topic, sent, '-z', name);
    assert.equal((await consume(topic)).toString(), sent);
  },
});

const acks = (level: string): Check => ({
  name: `acks=${level}`,
  run: async () => {
    const topic = unique('kcat-acks');
    const sent = lines(200);
    await produce(topic, 'first\n');
    await produce(topic, sent, '-X', `acks=${level}`);
    // No -e: with acks=0 the records may still be on their way when the reader comes.
    const read = await kcat(['-C', '-q', '-t', topic, '-p', '0', '-c', '201']);
    assert.equal(read.toString(), `first\n${sent}`);
  },
});

const checks: Check[] = [
  {
    name: 'metadata as JSON names the broker and the topic',
    run: async () => {
      const topic = unique('kcat-meta');
      await produce(topic, 'x\n');
      const all = JSON.parse((await kcat(['-L', '-J'])).toString());
      assert.ok(all.brokers.length >= 1);
      assert.ok(all.brokers.some((broker: { name: string }) => broker.name === bootstrap));
      assert.equal(all.originating_broker.name.split('/')[0], bootstrap);
      assert.equal(all.controllerid, all.brokers[0].id);
      assert.ok(all.topics.some((one: { topic: string }) => one.topic === topic));
      const one = JSON.parse((await kcat(['-L', '-J', '-t', topic])).toString());
      assert.equal(one.topics.length, 1);
      const [partition] = one.topics[0].partitions;
      assert.equal(partition.partition, 0);
      assert.equal(partition.leader, all.brokers[0].id);
      assert.deepEqual(partition.replicas, [{ id: partition.leader }]);
      assert.deepEqual(partition.isrs, [{ id: partition.leader }]);
    },
  },
  ...['none', 'gzip', 'snappy', 'lz4', 'zstd'].map(codec),
  ...['0', '1', 'all'].map(acks),
  {
    name: 'idempotent producer',
    run: async () => {
      const topic = unique('kcat-idempotent');
      const sent = lines(5000);
      await produce(topic, sent, '-X', 'enable.idempotence=true', '-X', 'batch.num.messages=100');
      assert.equal((await consume(topic)).toString(), sent);
    },
  },
  {
    name: 'keys',
    run: async () => {
      const topic = unique('kcat-keys');
      await produce(topic, 'a:1\nb:2\na:3\n', '-K', ':');
      assert.equal((await consume(topic, '-f', '%o %k=%s\n')).toString(), '0 a=1\n1 b=2\n2 a=3\n');
    },
  },
  {
    name: 'null keys and values differ from empty ones',
    run: async () => {
      const topic = unique('kcat-null');
      await produce(topic, 'k:\n', '-K', ':');
      await produce(topic, 'k:\n', '-K', ':', '-Z');
      await produce(topic, 'v\n');
      const records = await envelopes(topic);
      assert.deepEqual(
        records.map(({ key, payload }) => [key, payload]),
        [
          ['k', ''],
          ['k', null],
          [null, 'v'],
        ],
      );
      assert.equal((await consume(topic, '-f', '%K %S;')).toString(), '1 0;1 -1;-1 1;');
    },
  },
  {
    name: 'headers in order, duplicates and nulls',
    run: async () => {
      const topic = unique('kcat-headers');
      const headers = ['-H', 'b=2', '-H', 'a=1', '-H', 'b=3', '-H', 'none', '-H', 'empty='];
      await produce(topic, 'x\n', ...headers);
      const [record] = await envelopes(topic);
      assert.deepEqual(record?.headers, ['b', '2', 'a', '1', 'b', '3', 'none', null, 'empty', '']);
    },
  },
  {
    name: 'a record of 1 MB, and one over the limit refused',
    run: async () => {
      const topic = unique('kcat-large');
      const directory = mkdtempSync(join(tmpdir(), 'compat-kcat-'));
      try {
        const large = Buffer.alloc(1_048_000, 'Millrace ');
        const file = join(directory, 'large');
        writeFileSync(file, large);
        await kcat(['-P', '-t', topic, '-p', '0', '-X', 'message.max.bytes=10000000', file]);
        const read = await consume(topic, '-f', '%s');
        assert.ok(read.equals(large));
        writeFileSync(file, Buffer.alloc(2_000_000, 'x'));
        const refused = kcat(['-P', '-t', topic, '-p', '0', '-X', 'message.max.bytes=10000000', file]);
        await assert.rejects(refused, /too large/i);
        assert.equal((await consume(topic, '-f', '%o;')).toString(), '0;');
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  },
  {
    name: 'offset queries (-Q): by timestamp, beginning, end',
    run: async () => {
      const topic = unique('kcat-query');
      await produce(topic, 'a\nb\nc\n');
      await delay(50);
      await produce(topic, 'd\ne\n');
      const timestamps = (await envelopes(topic)).map(record => record.ts);
      const query = async (at: number) => (await kcat(['-Q', '-t', `${topic}:0:${at}`])).toString().trim();
      assert.equal(await query(timestamps[3]!), `${topic} [0] offset 3`);
      assert.equal(await query(timestamps[3]! - 1), `${topic} [0] offset 3`);
      assert.equal(await query(timestamps[0]! - 1000), `${topic} [0] offset 0`);
      assert.equal(await query(timestamps[4]! + 60_000), `${topic} [0] offset -1`);
      assert.equal(await query(-2), `${topic} [0] offset 0`);
      assert.equal(await query(-1), `${topic} [0] offset 5`);
    },
  },
  {
    name: 'start offsets: absolute, from the end, by time, stop',
    run: async () => {
      const topic = unique('kcat-start');
      await produce(topic, 'a\nb\nc\n');
      await delay(50);
      await produce(topic, 'd\ne\n');
      const [, , , fourth] = await envelopes(topic);
      assert.equal((await consume(topic, '-o', '2')).toString(), 'c\nd\ne\n');
      assert.equal((await consume(topic, '-o', '-2')).toString(), 'd\ne\n');
      assert.equal((await consume(topic, '-o', `s@${fourth!.ts}`)).toString(), 'd\ne\n');
      assert.equal((await consume(topic, '-o', 's@0', '-o', `e@${fourth!.ts}`)).toString(), 'a\nb\nc\n');
    },
  },
  {
    name: 'timestamps are the creation times',
    run: async () => {
      const topic = unique('kcat-times');
      const before = Date.now();
      await produce(topic, 'a\nb\n');
      const after = Date.now();
      for (const record of await envelopes(topic)) {
        assert.equal(record.tstype, 'create');
        assert.ok(record.ts >= before && record.ts <= after, `${before} <= ${record.ts} <= ${after}`);
      }
    },
  },
  {
    name: 'consumer group commits and resumes',
    run: async () => {
      const topic = unique('kcat-group');
      const group = unique('kcat-group');
      await produce(topic, lines(100));
      const member = ['-q', '-G', group, '-X', 'auto.offset.reset=earliest'];
      const first = (await kcat([...member, '-c', '40', topic])).toString();
      const rest = (await kcat([...member, '-e', topic])).toString();
      assert.equal(first.split('\n').length - 1, 40);
      assert.equal(first + rest, lines(100));
      await produce(topic, 'later\n');
      assert.equal((await kcat([...member, '-e', topic])).toString(), 'later\n');
    },
  },
  {
    name: 'an offset out of range resets, or is an error',
    run: async () => {
      const topic = unique('kcat-range');
      await produce(topic, 'a\nb\n');
      const reset = await consume(topic, '-o', '50', '-X', 'topic.auto.offset.reset=earliest');
      assert.equal(reset.toString(), 'a\nb\n');
      await assert.rejects(consume(topic, '-o', '50', '-X', 'topic.auto.offset.reset=error'), /out of range/i);
    },
  },
  {
    name: 'an unknown topic is not made by reading it',
    run: async () => {
      const topic = unique('kcat-absent');
      await assert.rejects(consume(topic), /unknown topic/i);
      const all = JSON.parse((await kcat(['-L', '-J'])).toString());
      assert.ok(!all.topics.some((one: { topic: string }) => one.topic === topic));
    },
  },
];

await runSuite(checks);
