// Mirrors from outside: a Millrace that is copied to a second one. Against Apache Kafka: kafka-mirror.test.ts.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createTopic, latest, listOffsets, topicConfig } from '../src/client/admin.ts';
import { fetchPartition } from '../src/client/fetch.ts';
import { comparePartition, type Difference } from '../src/mirror/compare.ts';
import { recompress } from '../src/protocol/compression.ts';
import { codec, splitBatches } from '../src/protocol/record-batch.ts';
import { buildBatch } from '../src/protocol/records.ts';
import { assertOdd, now, odd, records, text } from './mirror-records.ts';
import { assertGroupsMove, MirrorRig, produce } from './mirror-rig.ts';

let rig: MirrorRig;
before(async () => {
  rig = await MirrorRig.open();
});
after(() => rig?.remove());

const endOf = async (topic: string): Promise<bigint> =>
  (await listOffsets(rig.targetCluster, topic, [0], latest)).get(0)!;

test('every record is in the target as it is stored, at its offset, in a topic that is made like its source', async () => {
  const { sourceCluster, targetCluster } = rig;
  const config = { 'retention.ms': '123456789', 'compression.type': 'producer' };
  await createTopic(sourceCluster, { name: 'orders', partitionCount: 3, config });
  for (const number of [0, 1, 2, 3, 4]) {
    const batch = buildBatch({ records: [...odd, ...records(50)] });
    await produce(sourceCluster, 'orders', number % 3, await recompress(batch, number, { maxBytes: 2 ** 20 }));
  }
  await rig.create('copy', { topics: ['ord*'], rename: { 'ord*': 'shop.{topic}.{1}' } });
  await rig.caughtUp('copy', 3);
  assert.deepEqual(
    { ...(await rig.compare('copy')), found: undefined },
    {
      records: 260n,
      differences: 0n,
      foreign: 0n,
      found: undefined,
    },
  );
  const there = await fetchPartition(targetCluster, {
    topic: 'shop.orders.ers',
    partition: 0,
    offset: 0n,
    maxBytes: 2 ** 20,
  });
  const batches = splitBatches(there.records);
  assert.deepEqual(
    batches.map(batch => codec(batch)),
    [0, 3],
  );
  await assertOdd(batches[0]!);
  assert.deepEqual(await topicConfig(targetCluster, 'shop.orders.ers', ['retention.ms', 'compression.type']), config);

  // What is said of it: SQL, HTTP and metrics.
  assert.equal((await rig.api<unknown[]>('/copy/offsets')).length, 3);
  const { rows } = await rig.database.pool.query(
    `SELECT topic, partition, target_topic, state, next_offset::int, lag_records::int, lag_ms::int, forwarded::int
     FROM kafka.mirror_status WHERE mirror = 'copy' ORDER BY partition`,
  );
  assert.deepEqual(rows[0], {
    topic: 'orders',
    partition: 0,
    target_topic: 'shop.orders.ers',
    state: 'current',
    next_offset: 104,
    lag_records: 0,
    lag_ms: 0,
    forwarded: 104,
  });
  const metrics = await (await fetch(`${rig.source.http}/metrics`)).text();
  assert.match(metrics, /millrace_mirror_forwarded_total\{mirror="copy",topic="orders",partition="0"\} 104/);
  const asked = await rig.database.pool.query(`SELECT kafka.mirror_offset('copy', 'orders', 0, 7) AS at`);
  assert.equal(asked.rows[0].at, 7n);
});

test('where offsets differ they are translated, and a group that stops here goes on there at the next record', async () => {
  const { sourceCluster, targetCluster } = rig;
  // Somebody else's records are there before ours.
  await createTopic(targetCluster, { name: 'moved', partitionCount: 1 });
  await produce(targetCluster, 'moved', 0, buildBatch({ records: records(7) }));
  await createTopic(sourceCluster, { name: 'moved', partitionCount: 1 });
  await produce(sourceCluster, 'moved', 0, buildBatch({ records: records(10) }));
  await rig.create('move', { topics: ['moved'], groupsEveryMs: 100 });
  await rig.caughtUp('move');
  await produce(targetCluster, 'moved', 0, buildBatch({ records: records(3) }));
  await produce(sourceCluster, 'moved', 0, buildBatch({ records: records(10) }));
  await rig.caughtUp('move');
  const { records: same, differences, foreign } = await rig.compare('move');
  assert.deepEqual([same, differences, foreign], [20n, 0n, 3n]);
  await assertGroupsMove(rig, sourceCluster, targetCluster);
});

test('a record that the target refuses is in the dead letters with its neighbours in the target; strict stops at it', async () => {
  const { sourceCluster, targetCluster } = rig;
  const small = { 'max.message.bytes': '2000' };
  await createTopic(sourceCluster, { name: 'large', partitionCount: 1 });
  for (const name of ['large', 'strict.large'])
    await createTopic(targetCluster, { name, partitionCount: 1, config: small });
  const values = ['a', 'b', 'x'.repeat(5000), 'c', 'y'.repeat(4000), 'd'].map(value => ({
    timestamp: now,
    value: text(value),
  }));
  await produce(sourceCluster, 'large', 0, buildBatch({ records: values }));
  await produce(sourceCluster, 'large', 0, buildBatch({ records: records(5) }));
  await rig.create('lenient', { topics: ['large'] });
  const { partitions } = await rig.caughtUp('lenient');
  assert.deepEqual([partitions[0]!.forwarded, partitions[0]!.failed], [9, 2]);
  const { differences, foreign, records: same } = await rig.compare('lenient');
  assert.deepEqual([same, differences, foreign, await endOf('large')], [9n, 0n, 0n, 9n]);
  const { rows } = await rig.database.pool.query<{ size: number; code: string; offset: string }>(
    `SELECT octet_length(value) AS size,
            (SELECT convert_from(h.value, 'UTF8') FROM unnest(headers) h WHERE h.key = 'millrace.error.code') AS code,
            (SELECT convert_from(h.value, 'UTF8') FROM unnest(headers) h WHERE h.key = '__connect.errors.offset') AS offset
     FROM kafka.messages WHERE topic = 'lenient.dead-letter' ORDER BY partition_offset`,
  );
  assert.deepEqual(rows, [
    { size: 5000, code: 'MESSAGE_TOO_LARGE', offset: '2' },
    { size: 4000, code: 'MESSAGE_TOO_LARGE', offset: '4' },
  ]);

  await rig.create('strict', { topics: ['large'], rename: { large: 'strict.large' }, strict: true });
  const failed = await rig.until('strict', ({ state }) => state === 'failed');
  assert.match(failed.reason!, /the target refuses large-0@2: partition 0 of strict\.large: MESSAGE_TOO_LARGE/);
  assert.equal(await endOf('strict.large'), 2n);
});

test('topics and partitions that come later are copied; a paused mirror stays so, and goes on where it was', async () => {
  const { sourceCluster, targetCluster } = rig;
  await rig.create('later', { topics: ['later*'], exclude: ['*-not'] });
  await rig.until('later', ({ state }) => state === 'running');
  await createTopic(sourceCluster, { name: 'later-not', partitionCount: 1 });
  await createTopic(sourceCluster, {
    name: 'later-1',
    partitionCount: 1,
    config: { 'message.timestamp.type': 'LogAppendTime' },
  });
  await produce(sourceCluster, 'later-1', 0, buildBatch({ records: records(5) }));
  await rig.caughtUp('later');
  assert.equal((await rig.api<{ state: string }>('/later/pause', 'POST')).state, 'paused');
  await produce(sourceCluster, 'later-1', 0, buildBatch({ records: records(5) }));
  assert.equal(await endOf('later-1'), 5n);
  await rig.api('/later/resume', 'POST');
  await rig.caughtUp('later');
  const { records: same, differences, foreign } = await rig.compare('later');
  assert.deepEqual([same, differences, foreign, await endOf('later-1')], [10n, 0n, 0n, 10n]);
  assert.equal(await targetCluster.topic('later-not'), undefined);
  await assert.rejects(rig.create('later', { topics: ['x'] }), /409/);
  await assert.rejects(
    rig.create('wrong', { topics: ['x'], topic: 'y' }),
    /400.*mirror\.wrong\.topic is not a setting/,
  );
  await rig.api('/later', 'DELETE');
  await assert.rejects(rig.status('later'), /404/);
});

test('compare tells each record that differs or is missing, and counts the others', async () => {
  const { sourceCluster } = rig;
  const ours = records(6);
  const theirs = ours.slice(0, 5).map((record, i) => ({
    ...record,
    ...(i === 1 ? { value: text('other') } : {}),
    ...(i === 2 ? { headers: [{ key: 'h', value: null }] } : {}),
  }));
  for (const [name, list] of Object.entries({ ours, theirs })) {
    await createTopic(sourceCluster, { name, partitionCount: 1 });
    await produce(sourceCluster, name, 0, buildBatch({ records: list }));
  }
  const found: Difference[] = [];
  const compared = await comparePartition({
    source: sourceCluster,
    target: sourceCluster,
    topic: 'ours',
    targetTopic: 'theirs',
    partition: 0,
    ranges: [{ sourceOffset: 0n, targetOffset: 0n, records: 6n }],
    targetStart: 0n,
    onDifference: difference => found.push(difference),
  });
  assert.deepEqual(compared, { records: 3n, differences: 3n, foreign: 0n });
  assert.deepEqual(
    found.map(({ kind, sourceOffset, targetDigest }) => [kind, sourceOffset, targetDigest === undefined]),
    [
      ['differs', 1n, false],
      ['differs', 2n, false],
      ['missing', 5n, true],
    ],
  );
  assert.notEqual(found[0]!.sourceDigest, found[0]!.targetDigest);
});
