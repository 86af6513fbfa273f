// The producer against a broker that loses requests and answers, names other leaders and is slow: what was appended is
// there once and in order, or refused for good.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { randomFrom } from '../../test/faults/random.ts';
import { ScriptedBroker } from '../../test/scripted-broker.ts';
import { decodeBatch } from '../protocol/compression.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { Produce } from '../protocol/messages/00-produce.ts';
import { baseOffset, baseSequence } from '../protocol/record-batch.ts';
import { buildBatch } from '../protocol/records.ts';
import { newProducerId } from './admin.ts';
import { Cluster } from './cluster.ts';
import { ClientClosedError, KafkaError } from './errors.ts';
import { Producer } from './producer.ts';

const batchOf = (...values: string[]): Buffer =>
  buildBatch({ records: values.map(value => ({ timestamp: 0n, value: Buffer.from(value) })) });

async function setUp(
  t: TestContext,
  maxInFlight: number,
): Promise<{ broker: ScriptedBroker; cluster: Cluster; producer: Producer }> {
  const broker = await ScriptedBroker.start();
  broker.create('t', 3);
  const cluster = new Cluster({ bootstrap: [broker.address], clientId: 'test' });
  t.after(async () => {
    cluster.close();
    await broker.stop();
  });
  await cluster.topic('t');
  const producer = new Producer({ cluster, producerId: await newProducerId(cluster), epoch: 0, maxInFlight });
  return { broker, cluster, producer };
}

const valuesIn = async (broker: ScriptedBroker, partition: number): Promise<string[]> => {
  const batches = await Promise.all(
    broker.topics.get('t')![partition]!.batches.map(batch => decodeBatch(batch, 2 ** 20)),
  );
  return batches.flat().map(({ value }) => value!.toString());
};

for (const maxInFlight of [1, 5]) {
  test(`${maxInFlight} in flight: everything is there once and in order, whatever is lost on the way`, async t => {
    const { broker, producer } = await setUp(t, maxInFlight);
    const random = randomFrom(maxInFlight);
    const verdicts = [
      'break',
      'serve and break',
      ErrorCode.NOT_LEADER_OR_FOLLOWER,
      ErrorCode.NOT_ENOUGH_REPLICAS,
    ] as const;
    broker.decide = api => (api.key === Produce.key && random.below(4) === 0 ? random.pick(verdicts) : 'serve');
    const appended: Promise<bigint>[] = [];
    const expected: string[][] = [[], [], []];
    for (const partition of [0, 1, 2]) {
      expected[partition]!.push('first');
      await producer.append('t', partition, batchOf('first'));
    }
    for (let i = 0; i < 90; i++) {
      const partition = random.below(3);
      const values = Array.from({ length: 1 + random.below(3) }, (_, j) => `${i}.${j}`);
      expected[partition]!.push(...values);
      appended.push(producer.append('t', partition, batchOf(...values)));
      if (i % 10 === 0) await appended.at(-1);
    }
    await Promise.all(appended);
    for (const partition of [0, 1, 2]) assert.deepEqual(await valuesIn(broker, partition), expected[partition]);
    assert.equal(producer.queuedBytes, 0);
  });
}

test('a batch whose answer was lost is not overtaken until the partition has forgotten it', async t => {
  const { broker, producer } = await setUp(t, 5);
  await producer.append('t', 0, batchOf('a'));
  let asked = 0;
  broker.decide = (api, request: never) => {
    if (api.key !== Produce.key) return 'serve';
    const { topicData } = request as { topicData: { partitionData: { records: Buffer }[] }[] };
    if (baseSequence(topicData[0]!.partitionData[0]!.records) !== 1) return 'serve';
    asked++;
    if (asked === 1) return 'serve and break';
    return asked <= 3 ? ErrorCode.NOT_LEADER_OR_FOLLOWER : 'serve';
  };
  // More than the five that it remembers.
  const values = Array.from({ length: 12 }, (_, i) => `${i}`);
  await Promise.all(values.map(value => producer.append('t', 0, batchOf(value))));
  assert.deepEqual(await valuesIn(broker, 0), ['a', ...values]);
});

test('one batch is under way in a partition at a time, where that is asked for', async t => {
  const { broker, producer } = await setUp(t, 1);
  broker.decide = api => (api.key === Produce.key ? 'hold' : 'serve');
  const appended = [producer.append('t', 0, batchOf('a')), producer.append('t', 0, batchOf('b'))];
  await broker.until(() => broker.held === 1);
  broker.release();
  assert.equal(await appended[0], 0n);
  await broker.until(() => broker.held === 1);
  broker.release();
  assert.equal(await appended[1], 1n);
});

test('a batch that is refused ends its partition, and no other', async t => {
  const { broker, producer } = await setUp(t, 5);
  broker.decide = (api, request: never) => {
    if (api.key !== Produce.key) return 'serve';
    const { topicData } = request as { topicData: { partitionData: { index: number }[] }[] };
    return topicData[0]!.partitionData[0]!.index === 0 ? ErrorCode.MESSAGE_TOO_LARGE : 'serve';
  };
  const refused = [producer.append('t', 0, batchOf('a')), producer.append('t', 0, batchOf('b'))];
  for (const each of refused) await assert.rejects(each, { code: ErrorCode.MESSAGE_TOO_LARGE });
  await assert.rejects(producer.append('t', 0, batchOf('c')), KafkaError);
  assert.equal(await producer.append('t', 1, batchOf('d')), 0n);
});

test('a sequence that does not follow is refused for good', async t => {
  const { producer, broker } = await setUp(t, 5);
  await producer.append('t', 0, batchOf('a'));
  producer.begin('t', 0, 7);
  await assert.rejects(producer.append('t', 0, batchOf('b')), { code: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER });
  assert.deepEqual(
    broker.topics.get('t')![0]!.batches.map(batch => baseOffset(batch)),
    [0n],
  );
});

test('closing answers who waits', async t => {
  const { broker, cluster, producer } = await setUp(t, 5);
  broker.decide = () => 'never';
  const appended = producer.append('t', 0, batchOf('a'));
  await broker.until(() => broker.unanswered === 1);
  producer.abandon();
  cluster.close();
  await assert.rejects(appended, ClientClosedError);
  await assert.rejects(producer.append('t', 1, batchOf('b')), ClientClosedError);
});

test('another cluster behind the same address is not written to', async t => {
  const { broker, cluster, producer } = await setUp(t, 5);
  broker.clusterId = 'another';
  broker.decide = api => (api.key === Produce.key ? ErrorCode.NOT_LEADER_OR_FOLLOWER : 'serve');
  await assert.rejects(producer.append('t', 0, batchOf('a')), /was scripted, and now answers as another/);
  await assert.rejects(cluster.refresh(), /another/);
});

test('a batch that overtook the one before it, and was refused for that, goes again', async () => {
  const asked: { sequence: number; answer: (errorCode: number) => void }[] = [];
  let wake = (): void => {};
  const cluster = {
    isClosed: false,
    closing: new AbortController().signal,
    leaderOf: () => 1,
    refresh: async () => {},
    request: (_node: number, _api: unknown, request: { topicData: { partitionData: { records: Buffer }[] }[] }) => {
      const sequence = baseSequence(request.topicData[0]!.partitionData[0]!.records);
      wake();
      return new Promise(resolve => {
        const answer = (errorCode: number) =>
          resolve({
            responses: [
              {
                name: 't',
                partitionResponses: [{ index: 0, errorCode, baseOffset: BigInt(sequence), errorMessage: '' }],
              },
            ],
          });
        asked.push({ sequence, answer });
      });
    },
  } as unknown as Cluster;
  const requests = async (count: number) => {
    while (asked.length < count) {
      await new Promise<void>(resolve => {
        wake = () => setImmediate(resolve);
      });
    }
    return asked;
  };
  const producer = new Producer({ cluster, producerId: 1n, epoch: 0 });
  const appended = [producer.append('t', 0, batchOf('a')), producer.append('t', 0, batchOf('b'))];
  const [first, second] = await requests(2);
  second!.answer(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER);
  first!.answer(ErrorCode.NONE);
  const again = (await requests(3))[2]!;
  assert.equal(again.sequence, 1);
  again.answer(ErrorCode.NONE);
  assert.deepEqual(await Promise.all(appended), [0n, 1n]);
});

test('after a refusal a partition begins again where it is told', async t => {
  const { broker, producer } = await setUp(t, 5);
  broker.decide = api => (api.key === Produce.key ? ErrorCode.MESSAGE_TOO_LARGE : 'serve');
  const refused = ['a', 'b'].map(value => producer.append('t', 0, batchOf(value)));
  for (const each of refused) await assert.rejects(each, { code: ErrorCode.MESSAGE_TOO_LARGE });
  await producer.idle('t', 0);
  broker.decide = () => 'serve';
  producer.begin('t', 0, 0);
  await producer.append('t', 0, batchOf('c'));
  assert.deepEqual(await valuesIn(broker, 0), ['c']);
});
