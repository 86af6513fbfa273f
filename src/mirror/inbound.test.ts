// A mirror out of a cluster that holds transactions, damage and gaps, forgets what was not copied yet, and is away for a
// while. It is scripted (test/scripted-broker.ts). Out of real ones: test/mirror-into.test.ts, test/kafka-mirror-into.test.ts.
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { mirrorStage } from '../../test/mirror-stage.ts';
import { eventually, type OpenLog, openLog } from '../../test/open-log.ts';
import type { ScriptedBroker } from '../../test/scripted-broker.ts';
import { Fetch } from '../protocol/messages/01-fetch.ts';
import { assignOffset, headerBytes, lastOffsetDelta, writeCrc } from '../protocol/record-batch.ts';
import { buildBatch, type NewBatch } from '../protocol/records.ts';
import type { Mirror } from './mirror.ts';

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
  readonly name: string;
  mirror(more?: object): Mirror;
  /** In the source, at `offset`; at its end without. */
  append(values: readonly string[], more?: Partial<NewBatch>, offset?: bigint): Buffer;
  /** Here, with their offsets. */
  values(topic?: string): Promise<[bigint, string][]>;
}

let stages = 0;

async function stage(t: TestContext): Promise<Stage> {
  const name = `t${stages}`;
  const { broker, bootstrap, start } = await mirrorStage(t, database, open, name);
  broker.clusterId = `cluster ${stages++}`;
  broker.create(name, 1);
  const source = { bootstrap, metadataMs: 100 };
  return {
    broker,
    name,
    mirror: (more = {}) => start({ source, topics: [name], groups: [], ...more }),
    append(values, more = {}, offset) {
      const records = values.map(value => ({ timestamp: 1n, value: Buffer.from(value) }));
      const batch = buildBatch({ records, ...more });
      const partition = broker.topics.get(name)![0]!;
      const at = offset ?? partition.end;
      assignOffset(batch, 0, at, 0);
      partition.batches.push(batch);
      partition.end = at + BigInt(lastOffsetDelta(batch)) + 1n;
      return batch;
    },
    async values(topic = name) {
      const { rows: found } = await database.pool.query<{ at: bigint; value: Buffer }>(
        'SELECT partition_offset AS at, value FROM kafka.messages WHERE topic = $1 ORDER BY 1',
        [topic],
      );
      return found.map(({ at, value }) => [at, value.toString()]);
    },
  };
}

const at = (mirror: Mirror, offset: bigint) =>
  eventually(() => {
    const { state, partitions, reason } = mirror.status();
    assert.notEqual(state, 'failed', reason);
    return state === 'running' && partitions[0]?.nextOffset === offset;
  });

/** The end of a transaction: version 0, then 0 to abort, 1 to commit. */
const marker = (type: number) => ({
  records: [{ timestamp: 0n, key: Buffer.from([0, 0, 0, type]), value: Buffer.alloc(6) }],
  isControl: true,
});
const transactional = { producerId: 9n, producerEpoch: 0, isTransactional: true };

test('of transactions only what was committed is here, at its offset, and as nobody’s', async t => {
  const { broker, name, mirror, append, values } = await stage(t);
  append(['a', 'b'], { ...transactional, baseSequence: 0 });
  append([], { ...transactional, ...marker(1) });
  append(['lost', 'too'], { ...transactional, baseSequence: 2 });
  append(['plain']);
  append([], { ...transactional, ...marker(0) });
  append(['c'], { ...transactional, baseSequence: 4 });
  append([], { ...transactional, ...marker(1) });
  broker.topics.get(name)![0]!.aborted = [{ producerId: 9n, firstOffset: 3n, lastOffset: 6n }];
  const first = mirror();
  await at(first, 9n);
  const expected = [
    [0n, 'a'],
    [1n, 'b'],
    [5n, 'plain'],
    [7n, 'c'],
  ];
  assert.deepEqual(await values(), expected);
  const { lag, partitions } = first.status();
  assert.deepEqual([lag, partitions[0]!.forwarded, partitions[0]!.targetNextOffset], [0n, 4n, 8n]);
  // A group that had read to the source's end begins here where the log ends, not behind it.
  await first.note();
  const { rows } = await database.pool.query('SELECT kafka.mirror_offset($1, $1, 0, 9) AS end', [name]);
  assert.equal(rows[0].end, 8n);

  // Begun again, it goes on behind them, and keeps the gap.
  await first.stop();
  append(['d']);
  await at(mirror(), 10n);
  assert.deepEqual(await values(), [...expected, [9n, 'd']]);
});

test('what a local producer writes meanwhile moves what comes; after a restart nothing is there twice', async t => {
  const { name, mirror, append, values } = await stage(t);
  append(['a', 'b']);
  const first = mirror();
  await at(first, 2n);
  const topic = open.topics.get(name)!;
  assert.equal((await open.append(topic, 1)).baseOffset, 2n);
  append(['c'], {}, 2n);
  append(['d'], {}, 3n);
  await at(first, 4n);
  // A gap, in which the moved offsets have room again.
  append(['e'], {}, 100n);
  await at(first, 101n);
  await first.stop(AbortSignal.abort());
  append(['f']);
  const second = mirror();
  await at(second, 102n);
  assert.deepEqual(await values(), [
    [0n, 'a'],
    [1n, 'b'],
    [2n, 'value 0'],
    [3n, 'c'],
    [4n, 'd'],
    [101n, 'e'],
    [102n, 'f'],
  ]);
  const { rows } = await database.pool.query(
    `SELECT source_offset::int AS s, target_offset::int AS t, records::int AS n FROM kafka.mirror_offsets
     WHERE mirror = $1 ORDER BY 1`,
    [name],
  );
  assert.deepEqual(rows, [
    { s: 0, t: 0, n: 2 },
    { s: 2, t: 3, n: 100 },
  ]);
});

test('a batch that nobody could read is once in the dead letters, as it is, and the rest goes on; strict stops', async t => {
  const { name, mirror, append, values } = await stage(t);
  append(['a']);
  const broken = append(['x', 'y']);
  broken[headerBytes] = 0x7f; // the length of the first record
  writeCrc(broken);
  append(['b']);
  const strict = mirror({ strict: true });
  await eventually(() => strict.status().state === 'failed');
  assert.match(strict.status().reason!, /t\d+-0@1: CORRUPT_MESSAGE \(the records of the batch cannot be read\)/);
  const lenient = mirror();
  await at(lenient, 4n);
  assert.equal(lenient.status().partitions[0]!.failed, 2n);
  assert.deepEqual(await values(), [
    [0n, 'a'],
    [3n, 'b'],
  ]);
  const { rows } = await database.pool.query<{ value: Buffer; offset: string }>(
    `SELECT value, (SELECT convert_from(h.value, 'UTF8') FROM unnest(headers) h WHERE h.key = '__connect.errors.offset') AS offset
     FROM kafka.messages WHERE topic = $1`,
    [`${name}.dead-letter`],
  );
  assert.deepEqual(
    rows.map(({ value, offset }) => [value.equals(broken), offset]),
    [[true, '1']],
  );
});

test('a topic with records of before Kafka 0.11 is told of, and does not keep the others', async t => {
  const { broker, name, mirror, append } = await stage(t);
  append(['a'])[16] = 1; // the format
  const other = `${name}-other`;
  broker.create(other, 1);
  const running = mirror({ topics: [`${name}*`] });
  await eventually(() => running.status().problems.length > 0);
  assert.match(running.status().problems[0]!.reason, /records of before Kafka 0\.11: UNSUPPORTED_FOR_MESSAGE_FORMAT/);
  const batch = buildBatch({ records: [{ timestamp: 1n, value: Buffer.from('b') }] });
  broker.append(other, 0, batch);
  await eventually(() =>
    running.status().partitions.some(({ topic, nextOffset }) => topic === other && nextOffset === 1n),
  );
  assert.equal(running.status().state, 'running');
});

test('what retention deleted before it was copied is counted, or stops a strict mirror; a source set back stops any', async t => {
  const { broker, name, mirror, append, values } = await stage(t);
  append(['a']);
  const first = mirror();
  await at(first, 1n);
  await first.stop();
  append(['gone', 'too']);
  append(['b']);
  const partition = broker.topics.get(name)![0]!;
  partition.batches.splice(0, 2);
  const strict = mirror({ strict: true });
  await eventually(() => strict.status().state === 'failed');
  assert.match(strict.status().reason!, /begins at 3, and the mirror is at 1/);
  const lenient = mirror();
  await at(lenient, 4n);
  assert.equal(lenient.status().partitions[0]!.skipped, 2n);
  assert.deepEqual(await values(), [
    [0n, 'a'],
    [3n, 'b'],
  ]);
  await lenient.stop();
  partition.batches.splice(0);
  partition.end = 2n;
  const after = mirror();
  await eventually(() => after.status().state === 'failed');
  assert.match(after.status().reason!, /ends at 2 in the source, and is here up to 4/);
});

test('while the source is away it is told why, and little is held of one that gives much', async t => {
  const { broker, mirror, append, values } = await stage(t);
  broker.decide = api => (api.key === Fetch.key ? 'break' : 'serve');
  const running = mirror({ bufferBytes: 2 ** 20, throttle: { recordsPerSecond: 0.01 } });
  await eventually(() => running.status().source?.trouble !== undefined);
  broker.decide = () => 'serve';
  const large = 'x'.repeat(300_000);
  for (let i = 0; i < 30; i++) append([large]);
  // The first record is all that the throttle lets through.
  await eventually(() => running.status().source?.trouble === undefined && running.status().heldBytes > 0);
  for (let i = 0; i < 50; i++) {
    assert.ok(running.status().heldBytes < 2 ** 20 + 1_000_000, `${running.status().heldBytes} bytes are held`);
    await new Promise(setImmediate);
  }
  await running.stop();
  await at(mirror(), 30n);
  assert.equal((await values()).length, 30);
});

test('another cluster is not taken for the source, nor a topic made again that was deleted here', async t => {
  const { broker, name, mirror, append, values } = await stage(t);
  const { clusterId } = broker;
  append(['a']);
  const first = mirror();
  await at(first, 1n);
  await first.stop();
  broker.clusterId = 'another';
  const elsewhere = mirror();
  await eventually(() => elsewhere.status().state === 'failed');
  assert.match(
    elsewhere.status().reason!,
    /the source is cluster another now, and topics here were copied from another/,
  );
  broker.clusterId = clusterId;

  const again = mirror();
  await at(again, 1n);
  await open.topics.delete(open.topics.get(name)!);
  append(['b']);
  await eventually(() => again.status().problems.length > 0);
  await again.stop();
  const told = mirror();
  await eventually(() => told.status().state === 'running');
  const { reason } = told.status().problems[0]!;
  assert.match(reason, /has been deleted here; to copy all of it again, run: DELETE FROM/);
  assert.equal(open.topics.get(name), undefined);
  await told.stop();
  await database.pool.query(/DELETE .*/.exec(reason)![0]);
  await at(mirror(), 2n);
  assert.deepEqual(await values(), [
    [0n, 'a'],
    [1n, 'b'],
  ]);
});
