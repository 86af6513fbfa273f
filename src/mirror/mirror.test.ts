// A mirror against a target that takes nothing for a while, forgets, or loses answers. It is scripted
// (test/scripted-broker.ts). Against real ones: test/mirror.test.ts.
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { mirrorStage } from '../../test/mirror-stage.ts';
import { eventually, type OpenLog, openLog } from '../../test/open-log.ts';
import type { ScriptedBroker } from '../../test/scripted-broker.ts';
import { decodeBatch } from '../protocol/compression.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { Produce } from '../protocol/messages/00-produce.ts';
import { buildBatch } from '../protocol/records.ts';
import type { Topic } from '../storage/topics.ts';
import type { Mirror } from './mirror.ts';
import { isShared } from './share.ts';

let database: TestDatabase;
let open: OpenLog;
before(async () => {
  database = await createDatabase();
  open = await openLog(database);
});
after(async () => {
  await open?.log.stop();
  await database.drop();
});

interface Stage {
  readonly broker: ScriptedBroker;
  readonly topic: Topic;
  mirror(): Mirror;
  append(...values: string[]): Promise<void>;
  /** In the target. */
  values(): Promise<string[]>;
}

let stages = 0;

async function stage(t: TestContext, more: object = {}): Promise<Stage> {
  const name = `t${stages++}`;
  const { broker, bootstrap, start } = await mirrorStage(t, database, open, name);
  const topic = await open.createTopic(name);
  const definition = { target: { bootstrap }, topics: [name], groups: [], bufferBytes: 1024 * 1024, ...more };
  return {
    broker,
    topic,
    mirror: () => start(definition),
    async append(...values) {
      const batch = buildBatch({ records: values.map(value => ({ timestamp: 1n, value: Buffer.from(value) })) });
      const { error } = await open.log.append(topic, open.partition(topic), batch, -1, false).result;
      assert.equal(error, ErrorCode.NONE);
    },
    async values() {
      const batches = broker.topics.get(name)?.[0]?.batches ?? [];
      const records = await Promise.all(batches.map(batch => decodeBatch(batch, 2 ** 24)));
      return records.flat().map(({ value }) => value!.toString());
    },
  };
}

const caughtUp = (mirror: Mirror) =>
  eventually(() => {
    const { state, lag, partitions, reason } = mirror.status();
    assert.notEqual(state, 'failed', reason);
    return state === 'running' && lag === 0n && partitions.length > 0;
  });

test('while the target takes nothing, little is held and it is told why; then all of it goes, once', async t => {
  const { broker, mirror, append, values } = await stage(t);
  broker.decide = api => (api.key === Produce.key ? ErrorCode.NOT_ENOUGH_REPLICAS : 'serve');
  const large = 'x'.repeat(100_000);
  const expected = Array.from({ length: 60 }, (_, i) => `${i} ${large}`);
  for (const value of expected) await append(value);
  const running = mirror();
  await eventually(() => running.status().target?.trouble !== undefined);
  assert.match(running.status().target!.trouble!, /NOT_ENOUGH_REPLICAS/);
  // It begins with one batch alone; then as many as the buffer takes.
  broker.decide = api =>
    api.key === Produce.key && broker.topics.get(`t${stages - 1}`)![0]!.batches.length > 0 ? 'never' : 'serve';
  await eventually(() => running.status().heldBytes > 1024 * 1024);
  assert.ok(running.status().heldBytes < 1024 * 1024 + 300_000, `${running.status().heldBytes} bytes are held`);
  await running.stop(AbortSignal.abort());
  broker.decide = () => 'serve';
  const next = mirror();
  await caughtUp(next);
  assert.deepEqual(await values(), expected);
  assert.equal(next.status().partitions[0]!.targetNextOffset, 60n);
});

test('what arrived and was not noted is read back: nothing is there twice', async t => {
  const { broker, mirror, append, values } = await stage(t);
  await append('a');
  const first = mirror();
  await caughtUp(first);
  // Taken, but the answers are lost; then the mirror is gone.
  broker.decide = api => (api.key === Produce.key ? 'serve unheard' : 'serve');
  await append('b', 'c');
  await append('d');
  await eventually(async () => (await values()).length === 4);
  await first.stop(AbortSignal.abort());
  broker.decide = () => 'serve';
  await append('e');
  await caughtUp(mirror());
  assert.deepEqual(await values(), ['a', 'b', 'c', 'd', 'e']);
});

test('of a share, what arrived and was not noted is counted again', async t => {
  const { broker, topic, mirror, append, values } = await stage(t, { share: 50 });
  const given: string[] = [];
  const give = async (): Promise<void> => {
    const more = Array.from({ length: 40 }, (_, i) => `v${given.length + i}`);
    given.push(...more);
    await append(...more);
  };
  await give();
  const first = mirror();
  await caughtUp(first);
  broker.decide = api => (api.key === Produce.key ? 'serve and break' : 'serve');
  const noted = (await values()).length;
  await give();
  await eventually(async () => (await values()).length > noted);
  await first.stop(AbortSignal.abort());
  broker.decide = () => 'serve';
  await give();
  await caughtUp(mirror());
  const record = { timestamp: 1n, key: null, value: null, headers: [] };
  const chosen = given.filter((_, i) => isShared({ ...record, offset: BigInt(i) }, 0, 50));
  assert.ok(chosen.length > 30 && chosen.length < 90);
  assert.deepEqual(await values(), chosen, topic.name);
});

test('a target that has lost what it acknowledged ends the mirror with the way out', async t => {
  const { broker, topic, mirror, append } = await stage(t);
  await append('a', 'b');
  const first = mirror();
  await caughtUp(first);
  await first.stop();
  broker.create(topic.name, 1);
  const next = mirror();
  await eventually(() => next.status().state === 'failed');
  const { reason, hint } = next.status();
  assert.match(reason!, /ends at 0 in the target, which had acknowledged what is before 2/);
  assert.match(hint!, /^to go on without them, run: UPDATE kafka\.mirror_partitions/);
});
