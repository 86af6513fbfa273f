// Cut-over and back from outside, to a second Millrace: an idempotent producer that goes on all the while has each record on
// both sides once and in order. Against Apache Kafka: kafka-cutover.test.ts.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { createTopic } from '../src/client/admin.ts';
import { fetchFrom } from '../src/client/fetch.ts';
import { fetchOffsets } from '../src/client/groups.ts';
import { commitOffsets } from '../src/client/offsets.ts';
import { ClientIds } from '../src/mirror/client-ids.ts';
import { ErrorCode } from '../src/protocol/errors.ts';
import { buildBatch } from '../src/protocol/records.ts';
import { WriteLane } from '../src/storage/write-lane.ts';
import { Load } from './cutover-load.ts';
import { Millrace, mainProgram } from './millrace.ts';
import { addressOf, clusterAt, MirrorRig, produce } from './mirror-rig.ts';
import { valuesOf } from './read-values.ts';

let rig: MirrorRig;
before(async () => {
  rig = await MirrorRig.open();
});
after(() => rig?.remove());

const batchOf = (...values: string[]): Buffer =>
  buildBatch({ records: values.map(value => ({ timestamp: BigInt(Date.now()), value: Buffer.from(value) })) });

interface Told {
  readonly ready: boolean;
  readonly findings: readonly { readonly level: string; readonly message: string }[];
  readonly topics: readonly Record<string, unknown>[];
}

test('the target becomes the primary and this log again, under a producer that goes on', async () => {
  const { sourceCluster, targetCluster } = rig;
  await createTopic(sourceCluster, { name: 'orders', partitionCount: 2 });
  await rig.create('move', { topics: ['orders'], groupsEveryMs: 100 });
  await rig.caughtUp('move', 2);
  const load = await Load.start(rig.sourceAddress, 'orders', 2);
  try {
    for (let round = 0; round < 3; round++) {
      await load.acknowledged(50);
      const { topics } = await rig.api<Told>('/move/cutover', 'POST', { timeoutMs: 30_000 });
      assert.deepEqual(
        topics.map(({ topic, primary, offsets }) => [topic, primary, offsets]),
        [['orders', 'target', 'identical']],
      );
      await load.acknowledged(50);
      const there = await rig.api<Told>('/move/rollback', 'POST', { timeoutMs: 30_000 });
      assert.equal(there.topics[0]!.primary, 'here');
    }
    await load.acknowledged(50);
  } finally {
    await load.stop();
  }
  await rig.caughtUp('move', 2);
  for (const partition of [0, 1]) {
    const expected = load.sent(partition);
    assert.deepEqual(await valuesOf(sourceCluster, 'orders', partition), expected);
    assert.deepEqual(await valuesOf(targetCluster, 'orders', partition), expected);
  }
  const { differences, foreign } = await rig.compare('move');
  assert.deepEqual([differences, foreign], [0n, 0n]);
});

test('a plan tells what is not ready, and a cut-over refuses by it', async () => {
  const { sourceCluster } = rig;
  await createTopic(sourceCluster, { name: 'early', partitionCount: 1 });
  await produce(sourceCluster, 'early', 0, batchOf('a'));
  await rig.create('plan', { topics: ['early'], target: { bootstrap: rig.targetAddress, createTopics: false } });
  await rig.until('plan', ({ problems }) => problems.length === 1);
  const plan = await rig.api<Told>('/plan/plan');
  assert.equal(plan.ready, false);
  assert.match(plan.findings[0]!.message, /it is not copied: the target has no topic early/);
  await assert.rejects(rig.api('/plan/cutover', 'POST'), /409.*is not ready: early: it is not copied/);
  const refused = await millrace('cutover', 'plan');
  assert.equal(refused.status, 1);
  assert.match(refused.said, /mirror plan is not ready: early: it is not copied/);
  const told = await millrace('plan', 'plan');
  assert.equal(told.status, 1);
  assert.match(told.said, /^BLOCKS {2}early: it is not copied: .*\n.*nothing is copied yet\nnot ready\n$/);

  await createTopic(rig.targetCluster, { name: 'early', partitionCount: 1 });
  await rig.caughtUp('plan');
  const ready = await millrace('plan', 'plan', '--topic=early');
  assert.equal(ready.status, 0, ready.said);
  assert.match(ready.said, /^topic early = early: ready; 0 records, 0 ms behind; .*\nready\n$/s);
});

/** A command, as a person gives it. */
async function millrace(command: string, ...parameters: string[]): Promise<{ status: number | null; said: string }> {
  const http = `--http=${new URL(rig.source.http).host}`;
  const child = spawn(process.execPath, [...mainProgram, command, ...parameters, http]);
  let said = '';
  child.stdout.on('data', chunk => (said += chunk));
  child.stderr.on('data', chunk => (said += chunk));
  const [status] = await once(child, 'close');
  return { status, said };
}

test('a share of the keys goes, and all once it is raised and replayed: the map tells where', async () => {
  const { sourceCluster, targetCluster } = rig;
  await createTopic(sourceCluster, { name: 'part', partitionCount: 1 });
  await rig.create('share', { topics: ['part'], share: 30 });
  const give = async (from: number): Promise<void> => {
    const records = Array.from({ length: 100 }, (_, i) => ({
      timestamp: BigInt(1_700_000_000_000 + from + i),
      key: Buffer.from(`key ${i}`),
      value: Buffer.from(String(from + i)),
    }));
    for (let i = 0; i < 100; i += 20)
      await produce(sourceCluster, 'part', 0, buildBatch({ records: records.slice(i, i + 20) }));
  };
  await give(0);
  await rig.caughtUp('share');
  const chosen = (await valuesOf(targetCluster, 'part')).map(Number);
  assert.ok(chosen.length > 10 && chosen.length < 60, `${chosen.length} of 100`);
  await rig.api('/share/modes/part', 'PUT', { share: 60 });
  await give(100);
  const { partitions } = await rig.caughtUp('share');
  const then = (await valuesOf(targetCluster, 'part')).slice(chosen.length).map(value => Number(value) - 100);
  assert.ok(then.length > chosen.length && then.length < 90, `${then.length} of 100`);
  assert.deepEqual(
    chosen.filter(value => !then.includes(value)),
    [],
    'those of the smaller share are of the larger',
  );
  assert.equal(partitions[0]!.withheld, 200 - chosen.length - then.length);
  const some = await rig.compare('share');
  assert.deepEqual([some.records, some.differences, some.foreign], [BigInt(chosen.length + then.length), 0n, 0n]);
  await assert.rejects(rig.api('/share/cutover', 'POST'), /60 % of its keys are forwarded/);

  await rig.api('/share/modes/part', 'PUT', { share: 100 });
  await assert.rejects(
    rig.api('/share/cutover', 'POST'),
    /records were not of the share: replay it from its beginning/,
  );
  const before = BigInt((await valuesOf(targetCluster, 'part')).length);
  assert.deepEqual(await rig.api('/share/replay', 'POST', { topic: 'part', fromTimestamp: 1_700_000_000_000 }), [
    { partition: 0, fromOffset: 0 },
  ]);
  await rig.until(
    'share',
    ({ state, lag, partitions: [copy] }) =>
      state === 'running' && lag === 0 && copy?.targetNextOffset === Number(before) + 200,
  );
  assert.deepEqual(await rig.api<unknown[]>('/share/offsets'), [
    { topic: 'part', partition: 0, targetTopic: 'part', sourceOffset: 0, targetOffset: Number(before), records: 200 },
  ]);
  const all = await rig.compare('share');
  assert.deepEqual([all.records, all.differences, all.foreign], [200n, 0n, 0n]);
  assert.equal((await rig.api<Told>('/share/plan')).ready, true);
});

test('settings of a topic change while the mirror runs, and its position stays', async () => {
  const { sourceCluster, targetCluster } = rig;
  for (const name of ['set-a', 'set-b']) await createTopic(sourceCluster, { name, partitionCount: 1 });
  await rig.create('set', { topics: ['set-*'], modes: { '*-b': { mode: 'off' } } });
  await produce(sourceCluster, 'set-a', 0, batchOf('a'));
  await rig.caughtUp('set');
  assert.equal(await targetCluster.topic('set-b'), undefined);
  const put = (topic: string, settings: object) => rig.api(`/set/modes/${topic}`, 'PUT', settings);
  await put('set-a', { mode: 'off' });
  await put('set-b', { mode: 'shadow', sync: { timeoutMs: 30_000 } });
  await produce(sourceCluster, 'set-a', 0, batchOf('b'));
  // Acknowledged when the target has it.
  await produce(sourceCluster, 'set-b', 0, batchOf('c'));
  assert.deepEqual(await valuesOf(targetCluster, 'set-b'), ['c']);
  assert.deepEqual(await valuesOf(targetCluster, 'set-a'), ['a']);
  await rig.api('/set/modes/set-a', 'DELETE');
  await rig.caughtUp('set', 2);
  assert.deepEqual(await valuesOf(targetCluster, 'set-a'), ['a', 'b']);

  // Of one topic alone, with reads told to look elsewhere.
  await put('set-b', { mode: 'shadow', reads: 'redirect' });
  await rig.api('/set/cutover', 'POST', { topic: 'set-b' });
  await produce(sourceCluster, 'set-b', 0, batchOf('d'));
  assert.deepEqual(await valuesOf(targetCluster, 'set-b'), ['c', 'd']);
  const leader = sourceCluster.leaderOf('set-b', 0);
  const [fetched] = await fetchFrom(sourceCluster, leader, [
    { topic: 'set-b', partition: 0, offset: 0n, maxBytes: 1000 },
  ]);
  assert.equal(fetched!.errorCode, ErrorCode.NOT_LEADER_OR_FOLLOWER);
  await assert.rejects(put('set-b', { mode: 'off' }), /409.*the target is the primary of set-b/);
  await rig.api('/set/rollback', 'POST');
  assert.deepEqual(await valuesOf(sourceCluster, 'set-b'), ['c', 'd']);
  await assert.rejects(put('set-a', { mode: 'external-primary' }), /400.*give off or shadow/);
});

test('a repeated batch is answered with its offset on the side that takes records, whoever took it first', async () => {
  const { sourceCluster, targetCluster } = rig;
  for (const cluster of [sourceCluster, targetCluster])
    await createTopic(cluster, { name: 'again', partitionCount: 1 });
  await produce(targetCluster, 'again', 0, batchOf('1', '2', '3', '4', '5'));
  const sequenced = (baseSequence: number, count: number): Buffer => {
    const records = Array.from({ length: count }, () => ({ timestamp: 1n, value: Buffer.from('v') }));
    return buildBatch({ records, producerId: 4242n, producerEpoch: 0, baseSequence });
  };
  const [first, second, third] = [sequenced(0, 3), sequenced(3, 9), sequenced(12, 2)];
  const give = (batch: Buffer): Promise<bigint> => produce(sourceCluster, 'again', 0, batch);
  assert.deepEqual([await give(first), await give(second)], [0n, 3n]);
  await rig.create('again', { topics: ['again'] });
  await rig.caughtUp('again');
  await rig.api('/again/cutover', 'POST');
  assert.deepEqual([await give(first), await give(second), await give(third)], [5n, 8n, 17n]);
  await rig.until('again', ({ partitions: [follow] }) => follow?.targetNextOffset === 19);
  assert.deepEqual([await give(second), await give(third)], [8n, 17n]);
  await rig.api('/again/rollback', 'POST');
  assert.deepEqual([await give(second), await give(third)], [3n, 12n]);
});

test('of two mirrors out of one topic, one alone may be waited for, or cut over', async () => {
  const { sourceCluster } = rig;
  await createTopic(sourceCluster, { name: 'both', partitionCount: 1 });
  const sync = { timeoutMs: 30_000 };
  await rig.create('first', { topics: ['both'], sync });
  await rig.caughtUp('first');
  await rig.create('second', { topics: ['both'], rename: { both: 'both-again' }, sync });
  const reasonOf = async (name: string, reason: RegExp): Promise<void> => {
    const { problems } = await rig.until(name, told => told.problems.length === 1);
    assert.match(problems[0]!.reason, reason);
  };
  await reasonOf('second', /producers wait for mirror first already \(sync\)/);
  await rig.api('/second/modes/both', 'PUT', { sync: null });
  await rig.caughtUp('second');
  await assert.rejects(rig.api('/first/cutover', 'POST'), /409.*mirror second copies it too/);
  await rig.api('/second/pause', 'POST');
  await rig.api('/first/cutover', 'POST');
  await rig.api('/second/resume', 'POST');
  await reasonOf('second', /another mirror’s target is its primary/);
  await assert.rejects(rig.api('/second/cutover', 'POST'), /409.*another mirror’s target is its primary/);
  assert.equal(await produce(sourceCluster, 'both', 0, batchOf('a')), 0n);
  await rig.api('/first/rollback', 'POST');
  await rig.caughtUp('second');
  assert.deepEqual(await valuesOf(rig.targetCluster, 'both-again'), ['a']);
});

test('a producer has one id in the target, though two sessions ask for it at once', async () => {
  const { database, targetCluster: cluster } = rig;
  await createTopic(rig.sourceCluster, { name: 'ids', partitionCount: 1 });
  const { rows } = await database.pool.query<{ mirrorId: number; topicId: number }>(
    `INSERT INTO kafka.mirrors (name) VALUES ('ids')
     RETURNING mirror_id AS "mirrorId", (SELECT topic_id FROM kafka.topics WHERE name = 'ids') AS "topicId"`,
  );
  const load = () => ClientIds.load({ cluster, lane: new WriteLane(database.pool), clusterId: 'there', ...rows[0]! });
  const [one, other] = [await load(), await load()];
  const there = await one.there(7n);
  assert.equal(await other.there(7n), there);
  assert.equal(other.here(there), 7n);
  await database.pool.query(`DELETE FROM kafka.mirrors WHERE name = 'ids'`);
});

test('while the target is the primary, consumers and groups go on here, over a kill -9', async t => {
  const { sourceCluster, targetCluster } = rig;
  await createTopic(sourceCluster, { name: 'kept', partitionCount: 1 });
  await produce(sourceCluster, 'kept', 0, batchOf('a', 'b'));
  await rig.create('keep', { topics: ['kept'], groupsEveryMs: 100 });
  await rig.caughtUp('keep');
  await rig.api('/keep/cutover', 'POST');
  assert.equal(await produce(sourceCluster, 'kept', 0, batchOf('c')), 2n);
  // Somebody who has moved already.
  await produce(targetCluster, 'kept', 0, batchOf('d'));
  await produce(sourceCluster, 'kept', 0, batchOf('e'));
  const all = ['a', 'b', 'c', 'd', 'e'];
  await rig.until('keep', ({ partitions }) => partitions[0]?.targetNextOffset === 5);
  assert.deepEqual(await valuesOf(sourceCluster, 'kept'), all);
  assert.deepEqual(await valuesOf(targetCluster, 'kept'), all);
  await commitOffsets(sourceCluster, 'readers', [{ topic: 'kept', partition: 0, offset: 4n }]);
  await rig.api('/keep/groups', 'POST');
  assert.equal((await fetchOffsets(targetCluster, 'readers'))[0]?.offset, 4n);
  await assert.rejects(rig.api('/keep/pause', 'POST'), /409.*its target is the primary of kept/);
  await assert.rejects(rig.api('/keep', 'DELETE'), /409/);
  rig.source.kill('SIGKILL');
  await rig.source.exited;
  const again = new Millrace([`--database-url=${rig.database.url}`, '--log-level=warn']);
  t.after(() => again.stop('SIGKILL'));
  await again.ready();
  const cluster = clusterAt(addressOf(again));
  t.after(() => cluster.close());
  await cluster.retrying(() => produce(cluster, 'kept', 0, batchOf('f')));
  assert.deepEqual(await valuesOf(targetCluster, 'kept'), [...all, 'f']);
});
