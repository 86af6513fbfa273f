// A sink that reads a real Apache Kafka, logged in, while its broker is killed: committed transactions are in the table
// once, aborted ones are not, and Kafka's own group shows how far the sink is.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { type KafkaServer, kafkaIsMissing, startKafka } from '../compat/kafka/kafka.ts';
import { freePort } from './free-port.ts';
import { eventually } from './open-log.ts';
import { patiently } from './read-remote.ts';
import { openSinkRig, type SinkRig } from './sink-rig.ts';

const missing = kafkaIsMissing();
const skip = missing ? { skip: missing } : {};
const password = 'scram secret';

let directory: string;
let kafka: KafkaServer;
let ports: { plain: number; sasl: number };
let rig: SinkRig;

async function start(): Promise<void> {
  kafka = await startKafka({
    port: ports.plain,
    dataDir: join(directory, 'kafka'),
    heap: '400M',
    listeners: { SASL_PLAINTEXT: `127.0.0.1:${ports.sasl}` },
    scramUsers: { ann: password },
    overrides: {
      'sasl.enabled.mechanisms': 'SCRAM-SHA-256',
      'listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config':
        'org.apache.kafka.common.security.scram.ScramLoginModule required;',
      'offsets.topic.num.partitions': '1',
      'transaction.state.log.num.partitions': '1',
    },
  });
}

before(async () => {
  if (missing) return;
  directory = mkdtempSync(join(tmpdir(), 'millrace-kafka-source-'));
  ports = { plain: await freePort(), sasl: await freePort() };
  rig = await openSinkRig();
  await start();
});

after(async () => {
  await rig?.remove();
  await kafka?.stop();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

test('transactions of a Kafka that is killed are in the table once, and those aborted are not', {
  ...skip,
  timeout: 600_000,
}, async () => {
  process.env.SOURCE_PASSWORD = password;
  await rig.query('CREATE TABLE item (id int, n int, part int, off bigint)');
  const client = new kafkajs.Kafka({
    brokers: [`127.0.0.1:${ports.plain}`],
    logLevel: kafkajs.logLevel.NOTHING,
    retry: { retries: 100, initialRetryTime: 50, maxRetryTime: 500 },
  });
  const admin = client.admin();
  const createPartitioner = kafkajs.Partitioners.DefaultPartitioner;
  const plain = client.producer({ createPartitioner });
  const producer = client.producer({
    createPartitioner,
    transactionalId: 'writer',
    maxInFlightRequests: 1,
    idempotent: true,
  });
  try {
    await Promise.all([admin.connect(), plain.connect(), producer.connect()]);
    await admin.createTopics({ topics: [{ topic: 'shop.item', numPartitions: 3 }], waitForLeaders: true });
    const sink = await rig.start('items', {
      topics: ['shop.*'],
      source: {
        bootstrap: `127.0.0.1:${ports.sasl}`,
        sasl: { mechanism: 'SCRAM-SHA-256', username: 'ann', password: 'env:SOURCE_PASSWORD' },
        metadataMs: 500,
      },
      table: '{1}',
      mode: 'insert',
      key: 'none',
      columns: { part: 'partition', off: 'offset' },
      batchRows: 50,
    });
    const wanted: string[] = [];
    let id = 0;
    const messages = (n: number) => Array.from({ length: 20 }, () => ({ value: JSON.stringify({ id: id++, n }) }));
    const write = async (round: number): Promise<void> => {
      for (const outcome of ['commit', 'abort', 'plain', 'abort', 'commit'] as const) {
        const batch = messages(round);
        if (outcome !== 'abort') wanted.push(...batch.map(({ value }) => value));
        const compression = kafkajs.CompressionTypes.GZIP;
        if (outcome === 'plain') {
          await plain.send({ topic: 'shop.item', messages: batch, compression });
          continue;
        }
        const transaction = await producer.transaction();
        for (let at = 0; at < batch.length; at += 5) {
          await transaction.send({ topic: 'shop.item', messages: batch.slice(at, at + 5), compression });
        }
        await transaction[outcome]();
      }
    };
    await write(0);
    await kafka.kill();
    await start();
    await write(1);
    const ids = async () =>
      (await rig.query<{ id: number; n: number }>('SELECT id, n FROM item ORDER BY id')).map(row =>
        JSON.stringify(row),
      );
    await eventually(async () => {
      const { state, reason } = sink.status();
      assert.notEqual(state, 'failed', reason);
      return (await ids()).length >= wanted.length;
    });
    assert.deepEqual(await ids(), wanted);
    await eventually(async () => {
      const [answer] = await patiently(() => admin.fetchOffsets({ groupId: 'sink-items', topics: ['shop.item'] }));
      const shown = new Map(answer!.partitions.map(({ partition, offset }) => [partition, BigInt(offset)]));
      return sink.status().partitions.every(({ partition, committed, end }) => {
        return committed === end && shown.get(partition) === end;
      });
    });
    await sink.stop();
  } finally {
    await Promise.all([admin.disconnect(), plain.disconnect(), producer.disconnect()]);
  }
});
