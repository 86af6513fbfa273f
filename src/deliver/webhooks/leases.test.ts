import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { type DeliverRig, openDeliverRig, type Server } from '../../../test/deliver-rig.ts';
import { eventually } from '../../../test/open-log.ts';
import { Receiver } from '../../../test/webhook-receiver.ts';

const definition = (url: string) => ({
  news: { topics: ['events'], channel: 'webhook', webhook: { url, secrets: ['env:WEBHOOK_SECRET'], timeout: '10s' } },
});
const webhooks = { workers: 32, leaseMs: 60_000, pollMs: 60_000, allow: ['127.0.0.1'] };
const statusOf = ({ deliveries }: Server) => deliveries.webhooks()[0];
const lanesOf = (server: Server) => statusOf(server)?.lanes ?? 0;

async function withReceiver(work: (rig: DeliverRig, receiver: Receiver) => Promise<void>): Promise<void> {
  const rig = await openDeliverRig();
  const receiver = await Receiver.open();
  try {
    await work(rig, receiver);
  } finally {
    await rig.remove();
    await receiver.close();
  }
}

test('a completion under a lease that is another’s by now is refused and counted, and the event comes again', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    let answer!: () => void;
    const gate = new Promise<void>(resolve => {
      answer = resolve;
    });
    receiver.answer = async () => {
      await gate;
      return 200;
    };
    const server = await rig.serve(definition(receiver.url), { webhooks });
    await rig.send(topic, [{ key: 'ada', value: 'hello' }]);
    await eventually(() => receiver.received.length === 1);
    const { pool } = rig.database;
    // Another process has found the lease expired, and taken it.
    await pool.query(`UPDATE kafka.webhook_lanes SET owner = $1, lease_epoch = lease_epoch + 1`, [randomUUID()]);
    answer();
    await eventually(() => statusOf(server)!.fenced === 1);
    const receipts = async () => {
      const { rows } = await pool.query(
        `SELECT count(*) AS rows FROM kafka.inbox_part_1_receipts WHERE kind = 'webhook'`,
      );
      return rows[0].rows;
    };
    assert.equal(await receipts(), 0n, 'nothing was written under the old epoch');
    assert.equal(statusOf(server)!.delivered, 0);
    await pool.query('UPDATE kafka.webhook_lanes SET owner = NULL, expires_at = NULL');
    await pool.query(`SELECT pg_notify('millrace_inbox', 'webhooks')`);
    await eventually(() => statusOf(server)!.delivered === 1);
    assert.deepEqual(
      receiver.received.map(({ id }) => id),
      ['1-1', '1-1'],
    );
    assert.equal(await receipts(), 1n);
  });
});

test('processes share the lanes evenly, and who stops or expires leaves them to the others', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    const first = await rig.serve(definition(receiver.url), { webhooks });
    await eventually(() => lanesOf(first) === 16);
    const second = await rig.serve({}, { fills: false, webhooks });
    // Told by a signal, not by their clocks, which are a third of a minute away.
    const tell = () => rig.database.pool.query(`SELECT pg_notify('millrace_inbox', 'webhooks')`);
    await eventually(() => second.deliveries.webhooks().length === 1);
    await tell();
    await eventually(() => lanesOf(first) === 8 && lanesOf(second) === 8);
    const send = (count: number) =>
      rig.send(
        topic,
        Array.from({ length: count }, (_, i) => ({ key: `user-${i}`, value: `${i}` })),
      );
    await send(200);
    const delivered = () => [first, second].map(server => statusOf(server)?.delivered ?? 0);
    await eventually(() => delivered()[0]! + delivered()[1]! === 200);
    assert.ok(
      delivered().every(count => count > 0),
      `${delivered()}`,
    );
    assert.equal(receiver.received.length, 200, 'each once');

    await second.stop();
    await eventually(() => lanesOf(first) === 16);
    // One that was killed: its lease is over by the database's clock, its row of workers too.
    await rig.database.pool.query(
      `WITH gone AS (INSERT INTO kafka.webhook_workers SELECT inbox_id, $1, now() - interval '1 minute' FROM kafka.inboxes)
       UPDATE kafka.webhook_lanes SET owner = $1, lease_epoch = lease_epoch + 1, expires_at = now() - interval '1 second'
       WHERE lane < 8`,
      [randomUUID()],
    );
    await tell();
    await eventually(async () => {
      const { rows } = await rig.database.pool.query(
        'SELECT count(*) AS lanes, count(DISTINCT owner) AS owners FROM kafka.webhook_lanes WHERE expires_at > now()',
      );
      return rows[0].lanes === 16n && rows[0].owners === 1n && lanesOf(first) === 16;
    });
    const before = receiver.received.length;
    await send(50);
    // What was begun before it heard that they had been another's would come again.
    await receiver.until(received => new Set(received.slice(before).map(({ id }) => id)).size === 50);
  });
});

test('what is not settled when a process stops is not lost, and what is under way is waited for', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    let answer!: () => void;
    const gate = new Promise<void>(resolve => {
      answer = resolve;
    });
    receiver.answer = async () => {
      await gate;
      return 200;
    };
    const first = await rig.serve(definition(receiver.url), { webhooks: { ...webhooks, workers: 4 } });
    await rig.send(
      topic,
      Array.from({ length: 20 }, (_, i) => ({ key: `user-${i}`, value: `${i}` })),
    );
    // Of four at once MEDIUM has three; the fourth is kept for HIGH.
    await eventually(() => receiver.received.length === 3);
    const stopping = first.stop();
    answer();
    await stopping;
    assert.equal(receiver.received.length, 3, 'nothing is begun any more');
    const second = await rig.serve(definition(receiver.url), { webhooks });
    await eventually(() => statusOf(second)?.delivered === 17);
    assert.equal(new Set(receiver.bodies).size, 20);
    assert.equal(receiver.received.length, 20);
  });
});
