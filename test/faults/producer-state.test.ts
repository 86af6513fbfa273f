// The idempotent producers' sequences over restarts: what a client sends again after a crash is told from what is new.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ErrorCode } from '../../src/protocol/errors.ts';
import { buildBatch } from '../../src/protocol/records.ts';
import { createTopic, newProducerId, produce, readAll, record } from './kafka.ts';
import { TestServer } from './server.ts';
import { WireClient } from './wire.ts';

const server = await TestServer.start();
after(() => server.remove());
const topic = 'sequences';
let client = await WireClient.connect(server.port);
await createTopic(client, topic);
const producerId = await newProducerId(client);

interface Sent {
  readonly first: number;
  readonly records: number;
  readonly epoch?: number;
  readonly id?: bigint;
}

async function send({ first, records, epoch = 0, id = producerId }: Sent): Promise<[number, bigint]> {
  const values = Array.from({ length: records }, (_, i) => record(`${id}/${epoch}/${first + i}`));
  const batch = buildBatch({ records: values, producerId: id, producerEpoch: epoch, baseSequence: first });
  const { errorCode, baseOffset } = await produce(client, topic, 0, batch);
  return [errorCode, baseOffset];
}

async function crash(): Promise<void> {
  client.close();
  await server.killBroker();
  server.killPostgres();
  await server.start();
  client = await WireClient.connect(server.port);
}

async function stop(): Promise<void> {
  client.close();
  assert.equal(await server.stop(), 0);
  await server.start();
  client = await WireClient.connect(server.port);
}

for (const [how, restart] of [
  ['a crash', crash],
  ['a clean stop', stop],
  ['two crashes', () => crash().then(crash)],
] as const) {
  test(`after ${how}, repeats, gaps and old epochs are known as before`, async () => {
    const id = await newProducerId(client);
    const start = (await readAll(client, topic, 0)).length;
    const offset = (sequence: number) => BigInt(start + sequence);
    for (const [first, records] of [
      [0, 1],
      [1, 3],
      [4, 1],
      [5, 2],
      [7, 1],
      [8, 10],
    ] as const) {
      assert.deepEqual(await send({ id, first, records }), [ErrorCode.NONE, offset(first)]);
    }
    const other = await newProducerId(client);
    assert.deepEqual(await send({ id: other, epoch: 3, first: 0, records: 1 }), [ErrorCode.NONE, offset(18)]);
    await restart();

    // The five newest batches are remembered with their offsets; what is older is out of order, as in Kafka.
    for (const [first, records] of [
      [8, 10],
      [1, 3],
      [5, 2],
      [7, 1],
      [4, 1],
    ] as const) {
      assert.deepEqual(await send({ id, first, records }), [ErrorCode.NONE, offset(first)]);
    }
    const outOfOrder = [ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1n];
    assert.deepEqual(await send({ id, first: 0, records: 1 }), outOfOrder);
    assert.deepEqual(await send({ id, first: 8, records: 11 }), outOfOrder); // overlaps
    assert.deepEqual(await send({ id, first: 19, records: 1 }), outOfOrder); // a gap
    assert.deepEqual(await send({ id, epoch: 1, first: 5, records: 1 }), outOfOrder); // a new epoch begins at 0
    assert.deepEqual(await send({ id: other, epoch: 2, first: 1, records: 1 }), [
      ErrorCode.INVALID_PRODUCER_EPOCH,
      -1n,
    ]);
    assert.equal((await readAll(client, topic, 0)).length, start + 19);

    assert.deepEqual(await send({ id, first: 18, records: 1 }), [ErrorCode.NONE, offset(19)]);
    assert.deepEqual(await send({ id, epoch: 1, first: 0, records: 2 }), [ErrorCode.NONE, offset(20)]);
    assert.deepEqual(await send({ id, epoch: 0, first: 19, records: 1 }), [ErrorCode.INVALID_PRODUCER_EPOCH, -1n]);
    assert.equal((await readAll(client, topic, 0)).length, start + 22);
  });
}

test('producer ids are never given twice, crashes included', async () => {
  const ids = new Set<bigint>();
  for (let i = 0; i < 3; i++) ids.add(await newProducerId(client));
  await crash();
  for (let i = 0; i < 3; i++) ids.add(await newProducerId(client));
  assert.equal(ids.size, 6);
});

test('a batch in flight at the crash is there once, whether or not it was answered', async () => {
  const id = await newProducerId(client);
  for (let round = 0; round < 5; round++) {
    const before = (await readAll(client, topic, 0)).length;
    const sending = send({ id, first: round * 2, records: 2 }).catch(() => undefined);
    if (round % 2) await new Promise(setImmediate);
    else await server.metric('process_resident_memory_bytes').catch(() => {}); // some milliseconds of the server's own
    await crash();
    await sending;
    assert.deepEqual(await send({ id, first: round * 2, records: 2 }), [ErrorCode.NONE, BigInt(before)]);
    assert.equal((await readAll(client, topic, 0)).length, before + 2);
  }
});
