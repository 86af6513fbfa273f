// Bad inputs by name, and what a broker answers to each. test/fixtures/bad-inputs.json holds what Apache Kafka answers:
//   node --import tsx test/faults/bad-inputs.ts HOST:PORT > test/fixtures/bad-inputs.json
// against a broker started by compat/kafka/main.ts with auto.create.topics.enable=false and nothing in it.
import { fileURLToPath } from 'node:url';
import { codecNumber, compress } from '../../src/protocol/compression.ts';
import { errorOf } from '../../src/protocol/errors.ts';
import { Produce } from '../../src/protocol/messages/00-produce.ts';
import { Fetch } from '../../src/protocol/messages/01-fetch.ts';
import { ListOffsets } from '../../src/protocol/messages/02-list-offsets.ts';
import { Metadata } from '../../src/protocol/messages/03-metadata.ts';
import { CreateTopics } from '../../src/protocol/messages/19-create-topics.ts';
import { DeleteRecords } from '../../src/protocol/messages/21-delete-records.ts';
import { InitProducerId } from '../../src/protocol/messages/22-init-producer-id.ts';
import { headerBytes, replaceRecords, writeCrc } from '../../src/protocol/record-batch.ts';
import { buildBatch } from '../../src/protocol/records.ts';
import type { RequestToSend } from '../../src/protocol/schema.ts';
import { batchOf, createTopic, newProducerId, produce, record } from './kafka.ts';
import { sized } from './mutate.ts';
import { ClosedError, frameOf, WireClient } from './wire.ts';

const topic = 'bad-inputs';
/** Batches of this topic are rewritten, and may have 1,000 bytes. */
const small = 'bad-inputs-small';
/** This one has three records. */
const three = 'bad-inputs-three';
/** After this long without an answer none is expected, ms. */
const silenceMs = 5000;

interface Context {
  readonly client: WireClient;
  readonly port: number;
}
type Case = (context: Context) => Promise<string>;

const name = (errorCode: number): string => errorOf(errorCode).name;

/** The sound batch with bytes changed; its CRC is made to fit again unless `keepCrc`. */
function bend(change: (batch: Buffer) => void, keepCrc = false): Buffer {
  const batch = batchOf('one', 'two');
  change(batch);
  if (!keepCrc) writeCrc(batch);
  return batch;
}

const inCodec = async (codec: 'gzip' | 'snappy' | 'lz4' | 'zstd', batch: Buffer): Promise<Buffer> =>
  replaceRecords(batch, await compress(batch.subarray(headerBytes), codecNumber(codec)), codecNumber(codec));

const zeros = (bytes: number): Buffer => batchOf(Buffer.alloc(bytes));

function produced(records: Buffer | null | (() => Promise<Buffer>), to = topic, version = 9): Case {
  return async ({ client }) => {
    const bytes = typeof records === 'function' ? await records() : records && Buffer.from(records);
    return name((await produce(client, to, 0, bytes, { version })).errorCode);
  };
}

function producedAs(change: Partial<RequestToSend<typeof Produce>>, partition = 0, to = topic): Case {
  return async ({ client }) => {
    const { responses } = await client.request(Produce, 9, {
      acks: -1,
      timeoutMs: 10_000,
      topicData: [{ name: to, partitionData: [{ index: partition, records: batchOf('one') }] }],
      ...change,
    });
    return responses.flatMap(answer => answer.partitionResponses.map(({ errorCode }) => name(errorCode))).join(', ');
  };
}

type FetchRequest = RequestToSend<typeof Fetch>;
type FetchedPartition = FetchRequest['topics'][number]['partitions'][number];

function fetched(change: Partial<FetchedPartition>, rest: Partial<FetchRequest> = {}, of = topic): Case {
  return async ({ client }) => {
    const { errorCode, responses } = await client.request(Fetch, 11, {
      maxWaitMs: 0,
      minBytes: 1,
      maxBytes: 100_000,
      isolationLevel: 0,
      sessionId: 0,
      sessionEpoch: -1,
      topics: [{ topic: of, partitions: [{ partition: 0, fetchOffset: 0n, partitionMaxBytes: 100_000, ...change }] }],
      forgottenTopicsData: [],
      rackId: '',
      ...rest,
    });
    const partition = responses[0]?.partitions[0];
    if (!partition) return name(errorCode);
    return `${name(partition.errorCode)}${partition.records?.length ? ' with records' : ''}`;
  };
}

function listed(timestamp: bigint, partition = 0, of = topic, currentLeaderEpoch = -1): Case {
  return async ({ client }) => {
    const { topics } = await client.request(ListOffsets, 7, {
      replicaId: -1,
      isolationLevel: 0,
      topics: [{ name: of, partitions: [{ partitionIndex: partition, timestamp, currentLeaderEpoch }] }],
    });
    const { errorCode, offset } = topics[0]!.partitions[0]!;
    return `${name(errorCode)} ${offset}`;
  };
}

function deleted(offset: bigint, partition = 0, of = topic): Case {
  return async ({ client }) => {
    const { topics } = await client.request(DeleteRecords, 2, {
      topics: [{ name: of, partitions: [{ partitionIndex: partition, offset }] }],
      timeoutMs: 10_000,
    });
    return name(topics[0]!.partitions[0]!.errorCode);
  };
}

function created(change: Partial<RequestToSend<typeof CreateTopics>['topics'][number]>): Case {
  return async ({ client }) => {
    const { topics } = await client.request(CreateTopics, 7, {
      topics: [{ name: 'made', numPartitions: 1, replicationFactor: 1, assignments: [], configs: [], ...change }],
      timeoutMs: 10_000,
      validateOnly: true,
    });
    return name(topics[0]!.errorCode);
  };
}

/** Bytes as they are, on a connection of their own. */
const sent =
  (bytes: Buffer): Case =>
  async ({ port }) => {
    const own = await WireClient.connect(port);
    const answer = own.answer().then(
      () => 'answered',
      () => 'closed',
    );
    const silence = setTimeout(() => own.close(), silenceMs);
    await own.send(bytes);
    return answer.finally(() => {
      clearTimeout(silence);
      own.close();
    });
  };

const metadata = frameOf(Metadata, 9, {
  topics: null,
  allowAutoTopicCreation: false,
  includeTopicAuthorizedOperations: false,
});
const patched = (change: (frame: Buffer) => void): Buffer => {
  const frame = Buffer.from(metadata);
  change(frame);
  return frame;
};

const day = 86_400_000n;

export const badInputs: Readonly<Record<string, Case>> = {
  'a sound batch': produced(batchOf('one')),
  'a CRC that does not fit': produced(bend(batch => batch.writeUInt32BE(7, 17), true)),
  'a byte of a record changed': produced(bend(batch => batch.writeUInt8(batch.at(-2)! ^ 1, batch.length - 2), true)),
  'magic 0': produced(bend(batch => batch.writeInt8(0, 16))),
  'magic 1': produced(bend(batch => batch.writeInt8(1, 16))),
  'magic 3': produced(bend(batch => batch.writeInt8(3, 16))),
  'magic -1': produced(bend(batch => batch.writeInt8(-1, 16))),
  'a batch larger than max.message.bytes': produced(batchOf(Buffer.alloc(2000)), small),
  'a batch cut short': produced(batchOf('one', 'two').subarray(0, -3)),
  'a batch cut short in its header': produced(batchOf('one').subarray(0, 40)),
  'less than a batch begins with': produced(batchOf('one').subarray(0, 10)),
  'bytes after the batch': produced(Buffer.concat([batchOf('one'), Buffer.alloc(5)])),
  'two batches': produced(Buffer.concat([batchOf('one'), batchOf('two')])),
  'records of no bytes': produced(Buffer.alloc(0)),
  'records that are null': produced(null),
  'a batch length of two billion': produced(bend(batch => batch.writeInt32BE(2_000_000_000, 8), true)),
  'a batch length below zero': produced(bend(batch => batch.writeInt32BE(-5, 8), true)),
  'a record count of zero': produced(bend(batch => batch.writeInt32BE(0, 57))),
  'a record count below zero': produced(bend(batch => batch.writeInt32BE(-1, 57))),
  'a record count too large': produced(bend(batch => batch.writeInt32BE(3, 57))),
  'a record count of two billion': produced(bend(batch => batch.writeInt32BE(2_000_000_000, 57))),
  'a last offset delta that does not fit': produced(bend(batch => batch.writeInt32BE(5, 23))),
  'a last offset delta below zero': produced(bend(batch => batch.writeInt32BE(-1, 23))),
  'a record longer than the batch': produced(bend(batch => batch.writeUInt8(0x7e, 61))),
  'a record shorter than it says': produced(bend(batch => batch.writeUInt8(batch[61]! - 2, 61))),
  'a base offset of its own': produced(bend(batch => batch.writeBigInt64BE(1234n, 0))),
  'a leader epoch of its own': produced(bend(batch => batch.writeInt32BE(99, 12))),
  'a control batch': produced(buildBatch({ records: [record('one')], isControl: true })),
  'a transactional batch without a transaction': produced(
    buildBatch({ records: [record('one')], isTransactional: true, producerId: 5n, producerEpoch: 0, baseSequence: 0 }),
  ),
  'an idempotent batch without a sequence': async context =>
    produced(
      buildBatch({ records: [record('one')], producerId: await newProducerId(context.client), producerEpoch: 0 }),
    )(context),
  'a timestamp a day ahead': produced(buildBatch({ records: [{ timestamp: BigInt(Date.now()) + day }] })),
  'a timestamp long ago': produced(buildBatch({ records: [{ timestamp: 1n }] })),
  'a timestamp below zero': produced(buildBatch({ records: [{ timestamp: -5n }] })),
  'codec 5': produced(bend(batch => batch.writeInt16BE(5, 21))),
  'codec 7': produced(bend(batch => batch.writeInt16BE(7, 21))),
  'zstd before version 7': produced(() => inCodec('zstd', batchOf('one')), topic, 6),
  ...Object.fromEntries(
    (['gzip', 'snappy', 'lz4', 'zstd'] as const).map(codec => [
      `${codec} that is none`,
      produced(
        bend(batch => batch.writeInt16BE(codecNumber(codec), 21)),
        small,
      ),
    ]),
  ),
  'compressed records that do not fit their count': produced(async () => {
    const batch = await inCodec('gzip', batchOf('one', 'two'));
    batch.writeInt32BE(2, 23);
    batch.writeInt32BE(3, 57);
    writeCrc(batch);
    return batch;
  }, small),
  'a gzip bomb': produced(() => inCodec('gzip', zeros(200_000)), small),
  'a snappy bomb': produced(async () => inCodec('snappy', zeros(17_000)), small),
  'an lz4 bomb': produced(() => inCodec('lz4', zeros(200_000)), small),
  'a zstd bomb': produced(() => inCodec('zstd', zeros(200_000)), small),
  'acks=7': producedAs({ acks: 7 }),
  'acks=-2': producedAs({ acks: -2 }),
  'a timeout below zero': producedAs({ timeoutMs: -1 }),
  'produce to an unknown topic': producedAs({}, 0, 'nowhere'),
  'produce to an unknown partition': producedAs({}, 99),
  'produce to partition -1': producedAs({}, -1),
  'produce to a topic without a name': producedAs({}, 0, ''),
  'produce nothing': producedAs({ topicData: [] }),
  'fetch offset -1': fetched({ fetchOffset: -1n }),
  'fetch offset -2': fetched({ fetchOffset: -2n }),
  'fetch at the end': fetched({ fetchOffset: 3n }, {}, three),
  'fetch past the end': fetched({ fetchOffset: 4n }, {}, three),
  'fetch far past the end': fetched({ fetchOffset: 2n ** 62n }),
  'fetch from an unknown topic': fetched({}, {}, 'nowhere'),
  'fetch from an unknown partition': fetched({ partition: 99 }),
  'fetch from partition -1': fetched({ partition: -1 }),
  'fetch with a leader epoch to come': fetched({ currentLeaderEpoch: 1_000_000 }),
  'fetch of no bytes': fetched({}, { maxBytes: 0 }),
  'fetch of no bytes of the partition': fetched({ partitionMaxBytes: 0 }),
  'fetch of less than no bytes': fetched({ partitionMaxBytes: -1 }, { maxBytes: -1 }),
  'fetch with a wait below zero': fetched({ fetchOffset: 3n }, { maxWaitMs: -1, minBytes: 100 }, three),
  'fetch in an unknown session': fetched({}, { sessionId: 12_345, sessionEpoch: 3 }),
  'fetch in session 0 with an epoch': fetched({}, { sessionId: 0, sessionEpoch: 3 }),
  'the earliest offset': listed(-2n, 0, three),
  'the latest offset': listed(-1n, 0, three),
  'offsets for a time to come': listed(2n ** 60n),
  'offsets for -3': listed(-3n, 0, 'empty'),
  'offsets of an unknown topic': listed(-1n, 0, 'nowhere'),
  'offsets of an unknown partition': listed(-1n, 99),
  'offsets with a leader epoch to come': listed(-1n, 0, topic, 1_000_000),
  'delete records past the end': deleted(2n ** 60n),
  'delete records before -2': deleted(-2n),
  'delete records of an unknown topic': deleted(0n, 0, 'nowhere'),
  'delete records of an unknown partition': deleted(0n, 99),
  'create a topic that is there': created({ name: topic }),
  'create a topic of no partitions': created({ numPartitions: 0 }),
  'create a topic of -5 partitions': created({ numPartitions: -5 }),
  'create a topic of 0 replicas': created({ replicationFactor: 0 }),
  'create a topic of 3 replicas': created({ replicationFactor: 3 }),
  'create a topic without a name': created({ name: '' }),
  'create a topic named ..': created({ name: '..' }),
  'create a topic named a/b': created({ name: 'a/b' }),
  'create a topic with a long name': created({ name: 'x'.repeat(250) }),
  'create a topic with an unknown config': created({ configs: [{ name: 'no.such', value: '1' }] }),
  'create a topic with a bad config': created({ configs: [{ name: 'retention.ms', value: 'soon' }] }),
  'an empty transactional id': async ({ client }) =>
    name((await client.request(InitProducerId, 4, { transactionalId: '', transactionTimeoutMs: 1000 })).errorCode),
  'a frame of two billion bytes': sent(patched(frame => frame.writeInt32BE(2_000_000_000, 0))),
  'a frame of -1 bytes': sent(patched(frame => frame.writeInt32BE(-1, 0))),
  'a frame of 2 bytes': sent(sized(Buffer.alloc(2))),
  'an unknown key': sent(patched(frame => frame.writeInt16BE(999, 4))),
  'a key below zero': sent(patched(frame => frame.writeInt16BE(-3, 4))),
  'Metadata of version 99': sent(patched(frame => frame.writeInt16BE(99, 6))),
  'Metadata of version -1': sent(patched(frame => frame.writeInt16BE(-1, 6))),
  'Produce of version 99': sent(patched(frame => frame.writeInt32BE(99, 4))),
  'a request cut short': sent(sized(metadata.subarray(4, -2))),
  'a client id longer than the request': sent(patched(frame => frame.writeInt16BE(30_000, 12))),
  'an array of two billion': sent(sized(Buffer.concat([metadata.subarray(4, -4), Buffer.from('8094ebdc07', 'hex')]))),
  HTTP: sent(Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')),
};

/** What the broker says to each. */
export async function answersOf(port: number): Promise<Record<string, string>> {
  let client = await WireClient.connect(port);
  await createTopic(client, topic);
  await createTopic(client, small, 1, { 'max.message.bytes': '1000', 'compression.type': 'uncompressed' });
  for (const more of [three, 'empty']) await createTopic(client, more);
  for (let i = 0; i < 3; i++) await produce(client, three, 0, batchOf('sound'));
  const answers: Record<string, string> = {};
  for (const [what, ask] of Object.entries(badInputs)) {
    const silence = setTimeout(() => client.close(), silenceMs);
    const begun = Date.now();
    answers[what] = await ask({ client, port }).catch((error: unknown) => {
      if (error instanceof ClosedError) return Date.now() - begun < silenceMs ? 'closed' : 'no answer';
      throw new Error(what, { cause: error });
    });
    clearTimeout(silence);
    if (client.socket.destroyed) client = await WireClient.connect(port);
  }
  client.close();
  return answers;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const answers = await answersOf(Number(process.argv[2]!.split(':').at(-1)));
  process.stdout.write(`${JSON.stringify(answers, undefined, 2)}\n`);
}
