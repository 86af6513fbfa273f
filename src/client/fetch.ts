// Record batches out of a cluster, as they are stored. One request to one leader for as many of its partitions as are
// asked for, without a fetch session (KIP-227): who asks says everything.
import { ErrorCode } from '../protocol/errors.ts';
import { Fetch } from '../protocol/messages/01-fetch.ts';
import * as header from '../protocol/record-batch.ts';
import { WireError } from '../protocol/wire.ts';
import type { Cluster } from './cluster.ts';
import { KafkaError, UnreachableError } from './errors.ts';

export interface FetchPart {
  readonly topic: string;
  /** Where all parts of a request have it, brokers refuse to answer of another topic of the same name (KIP-516). */
  readonly topicId?: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly maxBytes: number;
}

export interface FetchOptions {
  readonly isolation?: 'read_uncommitted' | 'read_committed';
  /** How long the broker may wait for `minBytes`. */
  readonly maxWaitMs?: number;
  readonly minBytes?: number;
  readonly maxBytes?: number;
}

export interface Fetched {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  readonly highWatermark: bigint;
  /** Below it every transaction has ended; -1 where the broker does not say. */
  readonly lastStableOffset: bigint;
  readonly logStartOffset: bigint;
  /** Whole batches, but for the last one; the first can begin before the offset asked for (splitBatches). */
  readonly records: Buffer;
  /** With read_committed: of these producers what begins at the offset is not to be read. */
  readonly aborted: readonly { readonly producerId: bigint; readonly firstOffset: bigint }[];
}

interface AskedPartition {
  readonly partition: number;
  readonly fetchOffset: bigint;
  readonly partitionMaxBytes: number;
}

const isolationLevel = { read_uncommitted: 0, read_committed: 1 } as const;
const answerTimeoutMs = 30_000;

/** `parts` of one `leader`. Rejects with a ClientError; errors of partitions are in what it returns. */
export async function fetchFrom(
  cluster: Cluster,
  leader: number,
  parts: readonly FetchPart[],
  { isolation = 'read_uncommitted', maxWaitMs = 0, minBytes = 1, maxBytes = 50 * 2 ** 20 }: FetchOptions = {},
): Promise<Fetched[]> {
  const topics = new Map<string, { topicId: string | undefined; partitions: AskedPartition[] }>();
  for (const { topic, topicId, partition, offset, maxBytes: partitionMaxBytes } of parts) {
    const asked = topics.get(topic) ?? { topicId, partitions: [] };
    topics.set(topic, asked);
    asked.partitions.push({ partition, fetchOffset: offset, partitionMaxBytes });
  }
  const byId = new Map(Array.from(topics, ([topic, { topicId }]) => [topicId, topic]));
  const { errorCode, responses } = await cluster.request(
    leader,
    Fetch,
    {
      maxWaitMs,
      minBytes,
      maxBytes,
      isolationLevel: isolationLevel[isolation],
      sessionId: 0,
      sessionEpoch: -1,
      topics: Array.from(topics, ([topic, { topicId, partitions }]) => ({
        topic,
        ...(topicId === undefined ? {} : { topicId }),
        partitions,
      })),
      forgottenTopicsData: [],
      rackId: '',
    },
    { lane: 'fetch', least: 4, most: byId.has(undefined) ? 12 : 17, timeoutMs: maxWaitMs + answerTimeoutMs },
  );
  if (errorCode !== ErrorCode.NONE) throw new KafkaError(errorCode, `a fetch from broker ${leader}`);
  return responses.flatMap(({ topic, topicId, partitions }) =>
    partitions.map(({ partitionIndex, records, abortedTransactions, ...rest }) => ({
      // From version 13 on answers name the id only.
      topic: topic || (byId.get(topicId) ?? ''),
      partition: partitionIndex,
      errorCode: rest.errorCode,
      highWatermark: rest.highWatermark,
      lastStableOffset: rest.lastStableOffset,
      logStartOffset: rest.logStartOffset,
      records: records ?? Buffer.alloc(0),
      aborted: abortedTransactions ?? [],
    })),
  );
}

/** One partition from its leader, asked again until it answers. Rejects with KafkaError, such as OFFSET_OUT_OF_RANGE. */
export async function fetchPartition(cluster: Cluster, part: FetchPart, options: FetchOptions = {}): Promise<Fetched> {
  const { topic, partition } = part;
  await cluster.topic(topic);
  return cluster.retrying(async () => {
    const [answer] = await fetchFrom(cluster, cluster.leaderOf(topic, partition), [part], options);
    if (answer === undefined) throw new UnreachableError(`partition ${partition} of ${topic} was passed over`);
    if (answer.errorCode !== ErrorCode.NONE)
      throw new KafkaError(answer.errorCode, `partition ${partition} of ${topic}`);
    return answer;
  });
}

/**
 * The whole batches of an answer. Throws UnreachableError where one is damaged: it is to be asked for again; KafkaError for
 * the formats of before 0.11.
 */
export function checkedBatches(bytes: Buffer): Buffer[] {
  let batches: Buffer[];
  try {
    batches = header.splitBatches(bytes);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    if (header.magic(bytes) === 0 || header.magic(bytes) === 1) {
      throw new KafkaError(ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, 'records of before Kafka 0.11');
    }
    throw new UnreachableError('a fetch brought what are no record batches', { cause: error });
  }
  for (const batch of batches) {
    if (header.computeCrc(batch) !== header.crc(batch)) {
      throw new UnreachableError(`the batch at ${header.baseOffset(batch)} was damaged on its way`);
    }
  }
  return batches;
}
