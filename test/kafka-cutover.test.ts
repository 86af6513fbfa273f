// Cut-over to a real Apache Kafka and back, under idempotent producers of two clients that go on all the while: kafkajs, and
// librdkafka with several requests under way.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type KafkaServer, kafkaIsMissing, startKafka } from '../compat/kafka/kafka.ts';
import { createTopic } from '../src/client/admin.ts';
import { Load } from './cutover-load.ts';
import { MirrorRig } from './mirror-rig.ts';
import { valuesOf } from './read-values.ts';

const missing = kafkaIsMissing();
const skip = missing ? { skip: missing } : {};

let directory: string;
let kafka: KafkaServer;
let rig: MirrorRig;

before(async () => {
  if (missing) return;
  directory = mkdtempSync(join(tmpdir(), 'millrace-cutover-'));
  kafka = await startKafka({ dataDir: join(directory, 'kafka'), heap: '400M' });
  rig = await MirrorRig.open(kafka.bootstrap);
});
after(async () => {
  await rig?.remove();
  await kafka?.stop();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

const switchTo = (primary: 'cutover' | 'rollback') => rig.api(`/kafka/${primary}`, 'POST', { timeoutMs: 60_000 });

test('each acknowledged record is in Kafka and here once, in order, over cut-overs and back', {
  ...skip,
  timeout: 200_000,
}, async t => {
  const { sourceCluster, targetCluster, sourceAddress } = rig;
  const kcat = spawnSync('kcat', ['-V']).status === 0;
  for (const name of ['orders', 'lines']) await createTopic(sourceCluster, { name, partitionCount: 1 });
  await rig.create('kafka', { topics: ['orders', 'lines'], groupsEveryMs: 200 });
  await rig.caughtUp('kafka', 2);
  const load = await Load.start(sourceAddress, 'orders', 1);
  const producer = kcat ? spawnKcat(sourceAddress, 'lines') : undefined;
  if (!kcat) t.diagnostic('without librdkafka: kcat is not here');
  for (let round = 0; round < 2; round++) {
    await load.acknowledged(100);
    await switchTo('cutover');
    await load.acknowledged(100);
    await switchTo('rollback');
  }
  await load.acknowledged(100);
  const lines = (await producer?.stop()) ?? [];
  await load.stop();
  await rig.caughtUp('kafka', 2);
  for (const [topic, expected] of [
    ['orders', load.sent(0)],
    ['lines', lines],
  ] as const) {
    assert.deepEqual(await valuesOf(sourceCluster, topic), expected);
    assert.deepEqual(await valuesOf(targetCluster, topic), expected);
  }
  const { differences, foreign } = await rig.compare('kafka');
  assert.deepEqual([differences, foreign], [0n, 0n]);
});

/** librdkafka, which is given lines as fast as it takes them, in small batches. */
function spawnKcat(address: string, topic: string) {
  const settings = ['enable.idempotence=true', 'linger.ms=2', 'batch.num.messages=50', 'message.timeout.ms=120000'];
  const child = spawn(
    'kcat',
    ['-P', '-b', address, '-t', topic, '-p', '0', ...settings.flatMap(setting => ['-X', setting])],
    { stdio: ['pipe', 'ignore', 'inherit'] },
  );
  const lines: string[] = [];
  const timer = setInterval(() => {
    const more = Array.from({ length: 20 }, (_, i) => `line ${lines.length + i}`);
    lines.push(...more);
    child.stdin.write(`${more.join('\n')}\n`);
  }, 5);
  return {
    async stop(): Promise<readonly string[]> {
      clearInterval(timer);
      child.stdin.end();
      const [code] = await once(child, 'exit');
      assert.equal(code, 0, 'kcat has delivered everything');
      return lines;
    },
  };
}
