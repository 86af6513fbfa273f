// Mirrors into a Millrace from outside: a second Millrace is copied to it. From Apache Kafka: kafka-mirror-into.test.ts.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createPartitions, createTopic, earliest, latest, listOffsets, topicConfig } from '../src/client/admin.ts';
import { fetchPartition } from '../src/client/fetch.ts';
import { recompress } from '../src/protocol/compression.ts';
import { DeleteRecords } from '../src/protocol/messages/21-delete-records.ts';
import { codec, producerId, splitBatches } from '../src/protocol/record-batch.ts';
import { buildBatch } from '../src/protocol/records.ts';
import { assertOdd, odd, records } from './mirror-records.ts';
import { assertGroupsMove, MirrorRig, produce } from './mirror-rig.ts';

let rig: MirrorRig;
before(async () => {
  rig = await MirrorRig.open();
});
after(() => rig?.remove());

const endHere = async (topic: string): Promise<bigint> =>
  (await listOffsets(rig.sourceCluster, topic, [0], latest)).get(0)!;

test('every record is here as it is stored there, at its offset, in a topic that is made like its source', async () => {
  const { sourceCluster: here, targetCluster: there } = rig;
  const config = {
    'retention.ms': '123456789',
    'compression.type': 'producer',
    'message.timestamp.type': 'CreateTime',
  };
  await createTopic(there, { name: 'orders', partitionCount: 3, config });
  for (const number of [0, 1, 2, 3, 4]) {
    const producer = { producerId: 7n, producerEpoch: 0, baseSequence: number < 3 ? 0 : 52 };
    const batch = buildBatch({ records: [...odd, ...records(50)], ...producer });
    await produce(there, 'orders', number % 3, await recompress(batch, number, { maxBytes: 2 ** 20 }));
  }
  // Partition 1 begins in the middle of its first batch.
  await there.request(there.leaderOf('orders', 1), DeleteRecords, {
    topics: [{ name: 'orders', partitions: [{ partitionIndex: 1, offset: 10n }] }],
    timeoutMs: 10_000,
  });
  await rig.createInto('in', { topics: ['ord*'], rename: { 'ord*': 'shop.{topic}.{1}' } });
  await rig.caughtUp('in', 3);
  const { records: same, differences, foreign, found } = await rig.compare('in');
  assert.deepEqual([same, differences, foreign, found], [250n, 0n, 0n, []]);
  const copy = 'shop.orders.ers';
  assert.equal((await listOffsets(here, copy, [1], earliest)).get(1), 10n);
  const { records: bytes } = await fetchPartition(here, { topic: copy, partition: 0, offset: 0n, maxBytes: 2 ** 20 });
  const batches = splitBatches(bytes);
  assert.deepEqual(
    batches.map(batch => [codec(batch), producerId(batch)]),
    [
      [0, -1n],
      [3, -1n],
    ],
  );
  await assertOdd(batches[0]!);
  assert.deepEqual(await topicConfig(here, copy, Object.keys(config)), config);

  // What is said of it: SQL, HTTP and metrics.
  const ranges = await rig.api<{ sourceOffset: number; targetOffset: number }[]>('/in/offsets');
  assert.deepEqual(
    ranges.map(({ sourceOffset, targetOffset }) => [sourceOffset, targetOffset]),
    [
      [0, 0],
      [10, 10],
      [0, 0],
    ],
  );
  const { rows } = await rig.database.pool.query(
    `SELECT direction, topic, partition, target_topic, state, next_offset::int, end_offset::int, lag_records::int,
            lag_ms::int, forwarded::int FROM kafka.mirror_status WHERE mirror = 'in' ORDER BY partition`,
  );
  assert.deepEqual(rows[0], {
    direction: 'in',
    topic: 'orders',
    partition: 0,
    target_topic: copy,
    state: 'current',
    next_offset: 104,
    end_offset: 104,
    lag_records: 0,
    lag_ms: 0,
    forwarded: 104,
  });
  const metrics = await (await fetch(`${rig.source.http}/metrics`)).text();
  assert.match(metrics, /millrace_mirror_forwarded_total\{mirror="in",topic="orders",partition="0"\} 104/);
  const asked = await rig.database.pool.query(`SELECT kafka.mirror_offset('in', 'orders', 0, 7) AS at`);
  assert.equal(asked.rows[0].at, 7n);
  const { source, target } = await rig.status('in');
  assert.deepEqual([source?.bootstrap, target], [rig.targetAddress, undefined]);
});

test('behind what others write here offsets are translated, and a group that stops there goes on here at the next record', async () => {
  const { sourceCluster: here, targetCluster: there } = rig;
  await createTopic(here, { name: 'moved', partitionCount: 1 });
  await produce(here, 'moved', 0, buildBatch({ records: records(7) }));
  await createTopic(there, { name: 'moved', partitionCount: 1 });
  await produce(there, 'moved', 0, buildBatch({ records: records(10) }));
  await rig.createInto('move', { topics: ['moved'], groupsEveryMs: 3_600_000 });
  await rig.caughtUp('move');
  await produce(here, 'moved', 0, buildBatch({ records: records(3) }));
  await produce(there, 'moved', 0, buildBatch({ records: records(10) }));
  await rig.until('move', ({ partitions }) => partitions[0]!.nextOffset === 20);
  const { records: same, differences, foreign } = await rig.compare('move');
  assert.deepEqual([same, differences, foreign], [20n, 0n, 3n]);
  await assertGroupsMove(rig, there, here);
});

test('topics and partitions that come later are copied; a paused mirror stays so, and goes on where it was', async () => {
  const { sourceCluster: here, targetCluster: there } = rig;
  await rig.createInto('later', { topics: ['later*'], exclude: ['*-not'] });
  await rig.until('later', ({ state }) => state === 'running');
  await createTopic(there, { name: 'later-not', partitionCount: 1 });
  const config = { 'message.timestamp.type': 'LogAppendTime' };
  await createTopic(there, { name: 'later-1', partitionCount: 1, config });
  await produce(there, 'later-1', 0, buildBatch({ records: records(5) }));
  await rig.until('later', ({ partitions }) => partitions[0]?.nextOffset === 5);
  await createPartitions(there, 'later-1', 2);
  await produce(there, 'later-1', 1, buildBatch({ records: records(5) }));
  await rig.until('later', ({ partitions }) => partitions[1]?.nextOffset === 5);
  assert.equal((await rig.api<{ state: string }>('/later/pause', 'POST')).state, 'paused');
  await produce(there, 'later-1', 0, buildBatch({ records: records(5) }));
  assert.equal(await endHere('later-1'), 5n);
  await rig.api('/later/resume', 'POST');
  await rig.until('later', ({ partitions }) => partitions[0]?.nextOffset === 10);
  const { records: same, differences, foreign } = await rig.compare('later');
  assert.deepEqual([same, differences, foreign, await endHere('later-1')], [15n, 0n, 0n, 10n]);
  assert.equal(await here.topic('later-not'), undefined);
  // Out again it does not go: that would never end.
  await rig.create('circle', { topics: ['later-1'] });
  const { problems } = await rig.until('circle', ({ problems: told }) => told.length > 0);
  assert.match(problems[0]!.reason, /mirror later copies the other way between the same two topics/);
  await rig.api('/later/pause', 'POST');
  await rig.api('/circle/restart', 'POST');
  await rig.until('circle', ({ partitions }) => partitions.length === 2);
  await assert.rejects(rig.createInto('wrong', { topics: ['x'], target: { bootstrap: 'x:1' } }), /400.*both/);
});
