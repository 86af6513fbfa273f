import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { ScriptedBroker } from '../../test/scripted-broker.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { Produce } from '../protocol/messages/00-produce.ts';
import { Metadata } from '../protocol/messages/03-metadata.ts';
import { SaslHandshake } from '../protocol/messages/17-sasl-handshake.ts';
import { ApiVersions } from '../protocol/messages/18-api-versions.ts';
import { Connection } from './connection.ts';
import { IncompatibleError, UnreachableError } from './errors.ts';

const ask = { topics: [], allowAutoTopicCreation: false };

async function start(t: TestContext): Promise<ScriptedBroker> {
  const broker = await ScriptedBroker.start();
  t.after(() => broker.stop());
  return broker;
}

async function open(t: TestContext, broker: ScriptedBroker, options = {}): Promise<Connection> {
  const connection = await Connection.open(broker.address, { clientId: 'test', ...options });
  t.after(() => connection.close());
  return connection;
}

test('versions are what both sides speak, within what the caller can', async t => {
  const connection = await open(t, await start(t));
  assert.equal(connection.versionOf(Metadata), Metadata.versions[1]);
  assert.equal(connection.versionOf(Produce, { most: 12 }), 12);
  assert.equal(connection.versionOf(Produce, { least: 14 }), undefined);
  await assert.rejects(connection.request(SaslHandshake, { mechanism: 'PLAIN' }), IncompatibleError);
  assert.equal(connection.isOpen, true);
});

test('a broker that does not know the newest ApiVersions is asked in the oldest', async t => {
  const broker = await start(t);
  let asked = 0;
  broker.decide = () => 'serve';
  broker.instead = (api, correlationId) => {
    if (api.key !== ApiVersions.key || asked++ > 0) return undefined;
    // In version 0, whatever was asked in: correlation id, error, one API.
    const answer = Buffer.alloc(4 + 4 + 2 + 4 + 6);
    answer.writeInt32BE(answer.length - 4, 0);
    answer.writeInt32BE(correlationId, 4);
    answer.writeInt16BE(ErrorCode.UNSUPPORTED_VERSION, 8);
    answer.writeInt32BE(1, 10);
    answer.writeInt16BE(ApiVersions.key, 14);
    return answer;
  };
  const connection = await open(t, broker);
  assert.equal(asked, 2);
  assert.equal((await connection.request(Metadata, ask)).clusterId, 'scripted');
});

test('no more is in flight than allowed, and answers go to who asked', async t => {
  const broker = await start(t);
  broker.decide = api => (api.key === Metadata.key ? 'hold' : 'serve');
  broker.create('one', 1);
  broker.create('two', 2);
  const connection = await open(t, broker, { maxInFlight: 3 });
  const asked = Array.from({ length: 9 }, (_, i) =>
    connection.request(Metadata, { topics: [{ name: i % 2 ? 'one' : 'two' }] }),
  );
  const answers = Promise.all(asked);
  for (let answered = 0; answered < 9; answered += 3) {
    await broker.until(() => broker.held === 3);
    broker.release();
  }
  assert.deepEqual(
    (await answers).map(({ topics }) => topics[0]!.partitions.length),
    [2, 1, 2, 1, 2, 1, 2, 1, 2],
  );
  assert.equal(broker.mostUnanswered, 3);
});

const reply = (correlationId: number, ...body: number[]): Buffer => {
  const bytes = Buffer.alloc(8 + body.length);
  bytes.writeInt32BE(bytes.length - 4, 0);
  bytes.writeInt32BE(correlationId, 4);
  Buffer.from(body).copy(bytes, 8);
  return bytes;
};

const unreadable: Record<string, (correlationId: number) => Buffer> = {
  'an answer to another request': id => reply(id + 1, 0, 0),
  'an answer that is cut short': id => reply(id, 0),
  'a frame of a gigabyte': () => Buffer.from([0x40, 0, 0, 0, 0, 0, 0, 0]),
  'a frame of no bytes': () => Buffer.from([0, 0, 0, 0]),
  'more brokers than bytes': id => reply(id, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f),
};

for (const [what, bytes] of Object.entries(unreadable)) {
  test(`${what} ends the connection, and all that was asked`, async t => {
    const broker = await start(t);
    const connection = await open(t, broker);
    broker.instead = (_api, correlationId) => bytes(correlationId);
    const asked = [connection.request(Metadata, ask), connection.request(Metadata, ask)];
    for (const each of asked) await assert.rejects(each, UnreachableError);
    assert.equal(connection.isOpen, false);
    await assert.rejects(connection.request(Metadata, ask), UnreachableError);
  });
}

test('a broker that answers nothing is given up', async t => {
  const broker = await start(t);
  const connection = await open(t, broker, { requestTimeoutMs: 50 });
  broker.decide = () => 'never';
  await assert.rejects(connection.request(Metadata, ask), /did not answer Metadata within 50 ms/);
  assert.equal(connection.isOpen, false);
  await assert.rejects(Connection.open(broker.address, { clientId: 'test', connectTimeoutMs: 50 }), /50 ms to connect/);
});

test('who is not there, or hangs up, is unreachable', async t => {
  const closed = createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const { port } = closed.address() as { port: number };
  closed.close();
  await once(closed, 'close');
  await assert.rejects(Connection.open({ host: '127.0.0.1', port }, { clientId: 'test' }), UnreachableError);
  const broker = await start(t);
  const connection = await open(t, broker);
  broker.decide = () => 'break';
  await assert.rejects(connection.request(Metadata, ask), /closed the connection/);
  assert.ok((await connection.ended) instanceof UnreachableError);
});
