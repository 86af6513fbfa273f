// Webhooks sent by two processes of which one is killed, while a third, which sends none, fills the inbox: each event reaches
// its receiver.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { createDatabase } from '../database.ts';
import { secrets } from '../deliver-rig.ts';
import { freePort } from '../free-port.ts';
import { Millrace } from '../millrace.ts';
import { eventually } from '../open-log.ts';
import { Receiver, verifies } from '../webhook-receiver.ts';

const subscribers = 40;

test('over kill -9 of one of two processes that send, each event is received', { timeout: 240_000 }, async () => {
  const database = await createDatabase();
  const receiver = await Receiver.open();
  const directory = mkdtempSync(join(tmpdir(), 'millrace-webhooks-'));
  const config = join(directory, 'millrace.yaml');
  writeFileSync(
    config,
    `deliver:
  news:
    topics: [events]
    channel: webhook
    webhook: { url: '${receiver.url}', secrets: ['env:WEBHOOK_SECRET'], timeout: 1s, retries: [100ms, 100ms, 1s, 5s] }
`,
  );
  const kafkaPort = await freePort();
  const flags = [`--database-url=${database.url}`, '--log-level=warn', '--deliver-webhook-lease-ms=3s'];
  const env = secrets;
  const leader = new Millrace(
    [...flags, `--config=${config}`, `--kafka=127.0.0.1:${kafkaPort}`, '--deliver-webhook-workers=0'],
    { env },
  );
  const startSender = () =>
    new Millrace(
      [...flags, '--broker=false', '--deliver-webhook-allow=127.0.0.1', `--config=${join(directory, 'none')}`],
      {
        env,
      },
    ).ready();
  writeFileSync(join(directory, 'none'), '{}');
  await leader.ready();
  const senders = await Promise.all([startSender(), startSender()]);
  const kafka = new Kafka({ brokers: [`127.0.0.1:${kafkaPort}`], logLevel: logLevel.NOTHING });
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  const lanesOf = async () => {
    const { rows } = await database.pool.query<{ owner: string; lanes: bigint }>(
      `SELECT owner, count(*) AS lanes FROM kafka.webhook_lanes WHERE expires_at > now() GROUP BY owner`,
    );
    return rows.map(({ lanes }) => Number(lanes)).sort();
  };
  let sent = 0;
  const send = async (count: number): Promise<void> => {
    const messages = Array.from({ length: count }, () => {
      sent++;
      return { key: `user-${sent % subscribers}`, value: String(sent) };
    });
    await producer.send({ topic: 'events', messages });
  };
  try {
    await producer.connect();
    await eventually(async () => (await lanesOf()).join() === '8,8');
    await send(300);
    await receiver.until(({ length }) => length > 50);
    await senders[0]!.stop('SIGKILL');
    await send(300);
    await receiver.until(() => new Set(receiver.bodies).size === sent); // once the lease has expired
    senders[0] = await startSender();
    assert.equal(new Set(receiver.bodies).size, sent);
    assert.ok(receiver.received.every(received => verifies(received, secrets.WEBHOOK_SECRET)));
    const ids = new Map<string, string>();
    for (const { id, body } of receiver.received) {
      assert.equal(ids.get(id) ?? body, body, 'an id is one event’s');
      ids.set(id, body);
    }
    assert.equal(ids.size, sent);

    // Whoever stops gives its lanes back at once: the other need not wait for leases to expire.
    await eventually(async () => (await lanesOf()).join() === '8,8');
    await senders[0]!.stop();
    await eventually(async () => (await lanesOf()).join() === '16');
    await send(20);
    await receiver.until(() => new Set(receiver.bodies).size === sent);
  } finally {
    await producer.disconnect();
    await Promise.all([...senders, leader].map(process => process.stop('SIGKILL')));
    await receiver.close();
    rmSync(directory, { recursive: true });
    await database.drop();
  }
});
