import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { eventually } from '../../test/open-log.ts';
import { requestFrame } from '../protocol/header.ts';
import { ApiVersions } from '../protocol/messages/18-api-versions.ts';
import { BufferPool } from '../runtime/buffer-pool.ts';
import { Budget } from './budget.ts';
import type { BrokerContext } from './context.ts';
import { Dispatcher } from './dispatch.ts';
import { handler } from './handler.ts';
import { Listener } from './listener.ts';

const request = Buffer.concat(requestFrame(ApiVersions, 0, 1, 'test', {}));

/** Answers ApiVersions requests with an error, and nothing else. */
async function listen(t: TestContext): Promise<{ listener: Listener; budget: Budget; client: Socket }> {
  const budget = new Budget(1024 * 1024);
  const listener = new Listener({
    addresses: [{ host: '127.0.0.1', port: 0 }],
    maxConnections: 10,
    logConnections: false,
    dispatcher: new Dispatcher([handler(ApiVersions, () => ({ errorCode: 35, apiKeys: [] }))], {} as BrokerContext),
    budget,
    memory: new BufferPool(0),
    maxRequestBytes: 100_000,
    maxInFlightBytes: 100_000,
    maxIdleMs: 60_000,
    logger: pino({ level: 'silent' }),
    onServed: () => {},
  });
  await listener.start();
  const client = connect(listener.addresses[0]!.port, '127.0.0.1');
  client.on('error', () => {});
  await once(client, 'connect');
  t.after(() => {
    listener.abandon();
    client.destroy();
  });
  return { listener, budget, client };
}

test('what came before a malformed frame is given back too', async t => {
  const { budget, client } = await listen(t);
  client.write(Buffer.concat([request, request, Buffer.from([0x7f, 0xff, 0xff, 0xff])]));
  await once(client, 'close');
  await eventually(() => budget.held === 0);
});

test('draining ends as soon as idle clients have hung up', async t => {
  const { listener, client } = await listen(t);
  client.write(request);
  await once(client, 'data');
  const drained = listener.drain().then(() => true);
  assert.equal(await Promise.race([drained, delay(20_000, false)]), true);
});
