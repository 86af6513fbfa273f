// A remote source whose broker (test/scripted-broker.ts) refuses, breaks off, answers with damage, and has aborted
// transactions: each record is read once, in order, and none that was not committed.
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { ScriptedBroker, type Verdict } from '../../test/scripted-broker.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { Fetch } from '../protocol/messages/01-fetch.ts';
import { assignOffset, recordCount } from '../protocol/record-batch.ts';
import { buildBatch, type NewBatch } from '../protocol/records.ts';
import type { RequestOf } from '../protocol/schema.ts';
import { WriteLane } from '../storage/write-lane.ts';
import type { KafkaPartition } from './kafka-partition.ts';
import { KafkaSource } from './kafka-source.ts';
import { type Cursor, PartitionReader } from './reader.ts';
import type { SourcePartition } from './source.ts';
import { TopicIds } from './topic-ids.ts';

let database: TestDatabase;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

const batchOf = (values: readonly string[], more: Partial<NewBatch> = {}): Buffer =>
  buildBatch({ records: values.map(value => ({ timestamp: 0n, value: Buffer.from(value) })), ...more });

/** The end of a transaction: version 0, then 0 to abort, 1 to commit. */
const marker = (producerId: bigint, type: number): Buffer =>
  buildBatch({
    records: [{ timestamp: 0n, key: Buffer.from([0, 0, 0, type]), value: Buffer.alloc(6) }],
    producerId,
    producerEpoch: 0,
    isTransactional: true,
    isControl: true,
  });

async function stage(t: TestContext, partitions = 1) {
  const broker = await ScriptedBroker.start();
  broker.create('t', partitions);
  const source = new KafkaSource({
    bootstrap: [broker.address],
    tls: undefined,
    sasl: undefined,
    clientId: 'test',
    metadataMs: 3_600_000,
    topicIds: new TopicIds(new WriteLane(database.pool)),
  });
  t.after(async () => {
    source.close();
    await broker.stop();
  });
  const append = (batch: Buffer, partition = 0): void => {
    assert.equal(broker.append('t', partition, batch)[0], ErrorCode.NONE);
  };
  return { broker, source, append };
}

/** Values as they are read, until there are `count`; of each partition by itself. */
async function read(source: KafkaSource, count: number): Promise<string[][]> {
  return readOf(await source.partitions(name => name === 't'), count);
}

async function readOf(partitions: readonly SourcePartition[], count: number): Promise<string[][]> {
  const cursors = partitions.map((log): Cursor => ({ log, position: 0n }));
  const found = cursors.map((): string[] => []);
  let left = count;
  const reader = new PartitionReader({
    cursors,
    readBytes: 1024,
    take(cursor, record) {
      found[cursor.log.partition]!.push(String(record.value));
      left--;
      return true;
    },
    outOfRange(cursor) {
      throw new Error(`${cursor.position} is out of range`);
    },
    unreadable(_cursor, _batch, error) {
      throw error;
    },
  });
  while (left > 0) if (!(await reader.readSome())) await reader.wait(Number.POSITIVE_INFINITY);
  return found;
}

test('what aborted transactions wrote is passed over, whatever is between', async t => {
  const { broker, source } = await stage(t);
  const partition = broker.topics.get('t')![0]!;
  const store = (batch: Buffer): void => {
    assignOffset(batch, 0, partition.end, 0);
    partition.batches.push(batch);
    partition.end += BigInt(recordCount(batch));
  };
  const by = (producerId: bigint) => ({ producerId, producerEpoch: 0, isTransactional: true });
  store(batchOf(['a']));
  store(batchOf(['no', 'no'], by(7n)));
  store(batchOf(['b'], by(8n)));
  store(batchOf(['no'], by(7n)));
  store(marker(7n, 0));
  store(marker(8n, 1));
  store(batchOf(['c'], by(7n)));
  store(marker(7n, 1));
  store(batchOf(['d']));
  partition.aborted = [{ producerId: 7n, firstOffset: 1n, lastOffset: 5n }];
  assert.deepEqual(await read(source, 4), [['a', 'b', 'c', 'd']]);
});

test('a leader that has gone elsewhere, answers that break off and damaged ones cost nothing but time', async t => {
  const { broker, source, append } = await stage(t, 3);
  const values = Array.from({ length: 60 }, (_, i) => `${i}`);
  for (const value of values) append(batchOf([value]), Number(value) % 3);
  let fetches = 0;
  const faults: readonly Verdict[] = ['serve', ErrorCode.NOT_LEADER_OR_FOLLOWER, 'serve and break', 'break'];
  broker.decide = api => ((api as unknown) === Fetch && fetches < 12 ? faults[fetches++ % faults.length]! : 'serve');
  const damaged = broker.topics.get('t')![0]!.batches[5]!;
  const byte = damaged[damaged.length - 1]!;
  damaged[damaged.length - 1] = byte ^ 1;
  setTimeout(() => {
    damaged[damaged.length - 1] = byte;
  }, 300).unref();
  assert.deepEqual(
    await read(source, 60),
    [0, 1, 2].map(partition => values.filter(value => Number(value) % 3 === partition)),
  );
  assert.ok(fetches === 12);
});

test('no more is fetched than may be held', async t => {
  const { broker, source, append } = await stage(t, 40);
  const value = 'x'.repeat(400_000);
  for (let partition = 0; partition < 40; partition++) {
    for (let n = 0; n < 2; n++) append(batchOf([value]), partition);
  }
  const partitions = (await source.partitions(name => name === 't')) as KafkaPartition[];
  let most = 0;
  broker.decide = (api, request) => {
    if ((api as unknown) === Fetch) {
      const held = partitions.reduce((sum, { queuedBytes }) => sum + queuedBytes, 0);
      most = Math.max(most, held + (request as RequestOf<typeof Fetch>).maxBytes);
    }
    return 'serve';
  };
  const found = await readOf(partitions, 80);
  assert.ok(found.every(values => values.length === 2 && values.every(read => read === value)));
  assert.ok(most > 0 && most <= 16 * 1024 * 1024, `${most} bytes`);
});

test('a refusal that nothing mends reaches who reads', async t => {
  const { broker, source, append } = await stage(t);
  append(batchOf(['a']));
  broker.decide = api => ((api as unknown) === Fetch ? ErrorCode.TOPIC_AUTHORIZATION_FAILED : 'serve');
  await assert.rejects(read(source, 1), /TOPIC_AUTHORIZATION_FAILED/);
});

test('a topic of a remote cluster keeps its number, which no other has', async () => {
  const ids = new TopicIds(new WriteLane(database.pool));
  const [a, b] = [
    { uuid: '00000000-0000-0000-0000-00000000000a', name: 'a' },
    { uuid: '00000000-0000-0000-0000-00000000000b', name: 'b' },
  ];
  const [first, second] = await ids.of('one', [b, a]);
  assert.ok(first! < 0 && second! < 0 && first !== second);
  assert.deepEqual(await ids.of('one', [a, b]), [second, first]);
  const [other] = await ids.of('two', [a]);
  assert.ok(other! < 0 && ![first, second].includes(other));
});
