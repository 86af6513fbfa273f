// A mirror into a real Apache Kafka, with every way to log in: its broker is killed while records go into it; then a group
// moves over.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { createTopic } from '../src/client/admin.ts';
import { recompress } from '../src/protocol/compression.ts';
import { buildBatch, type NewRecord } from '../src/protocol/records.ts';
import { MirrorRig, produce } from './mirror-rig.ts';
import { logins, SecuredKafka, securedKafkaIsMissing } from './secured-kafka.ts';

const missing = securedKafkaIsMissing();
const skip = missing ? { skip: missing } : {};

let directory: string;
let kafka: SecuredKafka;
let rig: MirrorRig;

before(async () => {
  if (missing) return;
  directory = mkdtempSync(join(tmpdir(), 'millrace-mirror-'));
  kafka = await SecuredKafka.start(directory);
  rig = await MirrorRig.open(`127.0.0.1:${kafka.ports.plain}`);
});
after(async () => {
  await rig?.remove();
  await kafka?.stop();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

const text = (value: string): Buffer => Buffer.from(value);
let made = 0;
const records = (count: number): NewRecord[] =>
  Array.from({ length: count }, () => {
    made++;
    const key = made % 10 === 0 ? null : text(`k${made % 100}`);
    return { timestamp: BigInt(Date.now()), key, value: text(`v${made}`), headers: [{ key: 'h', value: null }] };
  });

/** Over TLS, with a login. */
function securedTarget(login: keyof typeof logins): object {
  const { password, ...sasl } = logins[login];
  const secret = join(directory, `${login}.secret`);
  writeFileSync(secret, password);
  return {
    bootstrap: `localhost:${kafka.ports.saslTls}`,
    tls: { ca: `file:${kafka.certificates.authority}` },
    sasl: { ...sasl, password: `file:${secret}` },
  };
}

test('Kafka has every record once, at its offset, though its broker is killed', {
  ...skip,
  timeout: 200_000,
}, async () => {
  const { sourceCluster } = rig;
  const config = {
    'compression.type': 'producer',
    'max.message.bytes': '2000000',
    'message.timestamp.type': 'CreateTime',
  };
  await createTopic(sourceCluster, { name: 'orders', partitionCount: 3, config });
  await createTopic(sourceCluster, {
    name: 'stamped',
    partitionCount: 1,
    config: { 'message.timestamp.type': 'LogAppendTime' },
  });
  await rig.create('kafka', { target: securedTarget('ann512'), topics: ['*'], groupsEveryMs: 200 });
  await rig.until('kafka', ({ state, partitions }) => state === 'running' && partitions.length >= 4);
  const load = async (batches: number): Promise<void> => {
    for (let i = 0; i < batches; i++) {
      const batch = await recompress(buildBatch({ records: records(20) }), i % 5, { maxBytes: 2 ** 20 });
      await produce(sourceCluster, 'orders', i % 3, batch);
    }
  };
  await load(150);
  const loading = load(150);
  await kafka.kill();
  await loading;
  await kafka.start();
  await produce(sourceCluster, 'stamped', 0, buildBatch({ records: records(10) }));
  // Further ahead of its time than Kafka takes: one of three.
  const ahead = BigInt(Date.now() + 86_400_000 * 2);
  await produce(
    sourceCluster,
    'stamped',
    0,
    buildBatch({ records: [...records(1), { timestamp: ahead, value: text('x') }, ...records(1)].slice(1) }),
  );
  const { partitions } = await rig.caughtUp('kafka', 4);
  const { records: same, differences, foreign, found } = await rig.compare('kafka');
  assert.deepEqual([differences, foreign, found], [0n, 0n, []]);
  assert.equal(same, 6000n + 10n + BigInt(2 - Number(partitions.find(({ topic }) => topic === 'stamped')!.failed)));
  const ranges = await rig.api<{ topic: string; sourceOffset: number; targetOffset: number }[]>('/kafka/offsets');
  const orders = ranges.filter(({ topic }) => topic === 'orders');
  assert.equal(orders.length, 3, 'one range for each partition');
  for (const { sourceOffset, targetOffset } of orders) assert.deepEqual([sourceOffset, targetOffset], [0, 0]);
});

test('each login copies; with a wrong password nothing goes, and it is told why', {
  ...skip,
  timeout: 120_000,
}, async () => {
  const { sourceCluster } = rig;
  await createTopic(sourceCluster, { name: 'secret', partitionCount: 1 });
  await produce(sourceCluster, 'secret', 0, buildBatch({ records: records(5) }));
  for (const login of ['bob', 'ann256'] as const) {
    const target = securedTarget(login);
    await rig.create(login, { target, topics: ['secret'], rename: { secret: `secret.${login}` } });
    await rig.caughtUp(login);
    assert.equal((await rig.compare(login)).records, 5n);
  }
  const target = securedTarget('bob');
  writeFileSync(join(directory, 'bob.secret'), 'guessed');
  await rig.create('wrong', { target, topics: ['secret'], rename: { secret: 'secret.wrong' } });
  const { target: told } = await rig.until('wrong', status => status.target?.trouble !== undefined);
  assert.match(told!.trouble!, /the broker refused the login of bob/);
  for (const name of ['bob', 'ann256', 'wrong']) await rig.api(`/${name}`, 'DELETE');
});

test('a group that moves over mid-load has each record once', { ...skip, timeout: 120_000 }, async () => {
  const { sourceCluster, sourceAddress, targetAddress } = rig;
  await createTopic(sourceCluster, { name: 'jobs', partitionCount: 2 });
  const seen: string[] = [];
  const consume = async (address: string, until: () => boolean): Promise<void> => {
    const client = new kafkajs.Kafka({
      brokers: [address],
      logLevel: kafkajs.logLevel.NOTHING,
      retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 60 },
    });
    const consumer = client.consumer({ groupId: 'workers', maxWaitTimeInMs: 100 });
    await consumer.connect();
    await consumer.subscribe({ topics: ['jobs'], fromBeginning: true });
    await new Promise<void>(resolve => {
      void consumer.run({
        eachMessage: async ({ message }) => {
          seen.push(message.value!.toString());
          if (until()) resolve();
        },
      });
      if (until()) resolve();
    });
    await consumer.disconnect(); // commits what it has had
  };
  let producing = true;
  const expected: string[] = [];
  const producer = (async () => {
    for (let i = 0; producing; i++) {
      const batch = records(10);
      expected.push(...batch.map(({ value }) => value!.toString()));
      await produce(sourceCluster, 'jobs', i % 2, buildBatch({ records: batch }));
    }
  })();
  await consume(sourceAddress, () => seen.length >= 200);
  const groups = () => rig.api<{ group: string; topic: string; state: string }[]>('/kafka/groups', 'POST');
  const hasAll = (all: readonly { group: string; topic: string }[]) =>
    all.filter(({ group, topic }) => group === 'workers' && topic === 'jobs').length === 2;
  // Until the copy has passed what the group had committed.
  for (let all = await groups(); !hasAll(all); all = await groups());
  await rig.until('kafka', ({ partitions }) => partitions.filter(({ topic }) => topic === 'jobs').length === 2);
  await groups();
  producing = false;
  await producer;
  await consume(targetAddress, () => seen.length >= expected.length);
  assert.equal(seen.length, expected.length);
  assert.deepEqual(seen.toSorted(), expected.toSorted());
});
