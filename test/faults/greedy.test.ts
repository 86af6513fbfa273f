// Clients that take all they can: memory stays bounded, and others get on. The bound is stated here, for the broker's
// default settings: 64 MiB in flight, 32 MiB of tail cache, 16 MiB of free blocks, and what Node and the loader of
// TypeScript take (130 MB at rest), with room for the collector.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ErrorCode } from '../../src/protocol/errors.ts';
import { Produce } from '../../src/protocol/messages/00-produce.ts';
import { Fetch } from '../../src/protocol/messages/01-fetch.ts';
import { heldCommits, holdCommits, releaseCommits } from './held-commits.ts';
import { batchOf, createTopic, fetchOnce, latest, listOffset, produce, readAll } from './kafka.ts';
import { Watch } from './memory.ts';
import { TestServer } from './server.ts';
import { frameOf, WireClient } from './wire.ts';

const MiB = 2 ** 20;
const residentBound = 512 * MiB;

const server = await TestServer.start();
after(() => server.remove());
const connect = () => WireClient.connect(server.port);
const other = await connect();
await createTopic(other, 'others');

/** Produces and reads back, so many times. */
async function getOn(times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const { errorCode, baseOffset } = await produce(other, 'others', 0, batchOf('mine'));
    assert.equal(errorCode, ErrorCode.NONE);
    assert.equal((await fetchOnce(other, 'others', 0, baseOffset)).errorCode, ErrorCode.NONE);
  }
}

const megabyte = batchOf(Buffer.alloc(1_000_000, 'm'));

/** A topic with more than any memory here holds. */
async function fill(topic: string, batches: number): Promise<void> {
  await createTopic(other, topic);
  const client = await connect();
  for (let i = 0; i < batches; i += 8) {
    await Promise.all(Array.from({ length: 8 }, () => produce(client, topic, 0, Buffer.from(megabyte))));
  }
  client.close();
}

const fetchOf = (topic: string, offset: bigint, maxBytes: number) =>
  frameOf(Fetch, 11, {
    maxWaitMs: 0,
    minBytes: 1,
    maxBytes,
    isolationLevel: 0,
    sessionId: 0,
    sessionEpoch: -1,
    topics: [{ topic, partitions: [{ partition: 0, fetchOffset: offset, partitionMaxBytes: maxBytes }] }],
    forgottenTopicsData: [],
    rackId: '',
  });

test('consumers that ask for 50 MB again and again and never read', async () => {
  await fill('long', 200);
  const watch = new Watch(server);
  const greedy = await Promise.all(Array.from({ length: 40 }, connect));
  for (const [i, client] of greedy.entries()) {
    client.socket.pause();
    // From the beginning, which comes from Postgres, and from the end, which is in memory.
    for (let k = 0; k < 20; k++) await client.send(fetchOf('long', BigInt((i * 5 + k) % 200), 50 * MiB));
  }
  await getOn(100);
  const reader = await connect();
  assert.equal((await readAll(reader, 'long', 0)).length, 200);
  for (const client of greedy) client.close();
  await getOn(10);
  watch.assertBelow(residentBound);
});

test('sixty-four producers that send faster than Postgres commits', async () => {
  await createTopic(other, 'flood', 16);
  const watch = new Watch(server);
  const producers = await Promise.all(Array.from({ length: 64 }, connect));
  const answers = producers.map(async (client, i) => {
    // All requests at once: it is for the broker to take no more than it can hold.
    const all = Array.from({ length: 12 }, () => produce(client, 'flood', i % 16, Buffer.from(megabyte)));
    return (await Promise.all(all)).map(({ errorCode }) => errorCode);
  });
  await getOn(20);
  assert.deepEqual(new Set((await Promise.all(answers)).flat()), new Set([ErrorCode.NONE]));
  let total = 0n;
  for (let i = 0; i < 16; i++) total += await listOffset(other, 'flood', i, latest);
  assert.equal(total, 64n * 12n);
  for (const client of producers) client.close();
  watch.assertBelow(residentBound);
});

test('sixty-four producers while no commit ends: consumers get on, and so does everybody afterwards', async () => {
  const [sql, probe] = [await server.sql(), await server.sql()];
  await createTopic(other, 'stalled', 16);
  await produce(other, 'stalled', 15, batchOf('first')); // which makes the table that the others go to
  const watch = new Watch(server);
  await holdCommits(sql, probe);
  const producers = await Promise.all(Array.from({ length: 64 }, connect));
  // Half send much at a time, half very many small ones.
  const small = frameOf(Produce, 9, {
    acks: -1,
    timeoutMs: 600_000,
    topicData: [{ name: 'stalled', partitionData: [{ index: 0, records: batchOf('x') }] }],
  });
  const burst = Buffer.concat(new Array<Buffer>(2000).fill(small));
  const answers = producers.map((client, i) =>
    i % 2 ? client.answer() : produce(client, 'stalled', i % 16, Buffer.from(megabyte)),
  );
  for (const [i, client] of producers.entries()) if (i % 2) for (let k = 0; k < 3; k++) void client.send(burst);
  await heldCommits(sql, 'millrace writer', 1);
  for (let i = 0; i < 50; i++) {
    assert.equal((await fetchOnce(other, 'others', 0, 0n)).errorCode, ErrorCode.NONE);
    assert.equal(await listOffset(other, 'stalled', i % 15, latest), 0n);
  }
  await releaseCommits(sql);
  await Promise.all(answers);
  for (const client of producers) client.close();
  await getOn(10);
  watch.assertBelow(residentBound);
  await Promise.all([sql.end(), probe.end()]);
});
