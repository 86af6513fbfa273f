// Fetch, versions 4 to 18: sessions (KIP-227), topic ids from 13 (KIP-516), min bytes and max wait over all partitions of
// the request, max bytes over all and per partition, where the first batch always comes (KIP-74). Stored bytes go to
// the socket as they are. There are no open transactions, so the last stable offset is the high watermark and no
// transaction is ever reported as aborted.
// Differs from Kafka: a batch lies wholly below the high watermark, so the log can be cut only at batches.
import { ErrorCode } from '../../protocol/errors.ts';
import { Fetch } from '../../protocol/messages/01-fetch.ts';
import type { RequestOf, ResponseOf } from '../../protocol/schema.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import type { RequestContext } from '../context.ts';
import type { FetchPartition } from '../fetch-sessions.ts';
import { awaitChange } from '../fetch-wait.ts';
import { handler } from '../handler.ts';
import { leaderEpochProblem } from '../leader-epoch.ts';

type PartitionAnswer = ResponseOf<typeof Fetch>['responses'][number]['partitions'][number];

interface Wanted {
  readonly request: FetchPartition;
  readonly partition: PartitionLog | undefined;
  readonly errorCode: number;
}

interface Result extends Wanted {
  readonly errorCode: number;
  readonly chunks: readonly Buffer[];
  readonly bytes: number;
  readonly release?: () => void;
}

/** However little memory is free, a fetch may read this much, so that consumers always get on. */
const leastBytes = 65_536;

export const fetch = handler(
  Fetch,
  async (request, context) => {
    const { broker } = context;
    const session = broker.fetchSessions.begin(
      request.sessionId,
      request.sessionEpoch,
      partitionsOf(request, context),
      request.forgottenTopicsData.flatMap(({ topic, topicId, partitions }) =>
        partitions.map(partition => ({ ...nameOf(topic, topicId, context), partition })),
      ),
    );
    if ('errorCode' in session) return { errorCode: session.errorCode, sessionId: 0, responses: [] };

    const wanted = session.partitions.map(partition => resolve(partition, context));
    const deadline = performance.now() + request.maxWaitMs;
    const partitions = wanted.flatMap(({ partition }) => (partition ? [partition] : []));
    let ends = partitions.map(partition => partition.highWatermark);
    let results = await readAll(wanted, request.maxBytes, context);
    // Of no partitions nothing will ever come: so a consumer ends its session.
    while (wanted.length > 0 && isTooLittle(results, request.minBytes)) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0 || context.signal.aborted) break;
      release(results);
      // What moved while others were read from Postgres has woken nobody.
      const moved = partitions.some((partition, i) => partition.highWatermark !== ends[i]);
      if (!moved) await awaitChange(partitions, leftMs, context.signal);
      ends = partitions.map(partition => partition.highWatermark);
      results = await readAll(wanted, request.maxBytes, context);
    }
    const sent = results;
    context.whenSent(() => release(sent));
    return {
      throttleTimeMs: 0,
      errorCode: ErrorCode.NONE,
      sessionId: session.sessionId,
      responses: group(results.filter(result => session.include(result.request, stateOf(result))).map(toAnswer)),
    };
  },
  [4, 18],
);

function partitionsOf(request: RequestOf<typeof Fetch>, context: RequestContext): FetchPartition[] {
  return request.topics.flatMap(({ topic, topicId, partitions }) =>
    partitions.map(({ partition, currentLeaderEpoch, fetchOffset, lastFetchedEpoch, partitionMaxBytes }) => ({
      ...nameOf(topic, topicId, context),
      partition,
      currentLeaderEpoch,
      fetchOffset,
      lastFetchedEpoch,
      maxBytes: partitionMaxBytes,
    })),
  );
}

/** As the client names it: by id from version 13, by name before. The other half stays empty. */
function nameOf(
  topicName: string,
  topicId: string,
  { apiVersion }: RequestContext,
): { topicName: string; topicId: string } {
  return apiVersion >= 13 ? { topicName: '', topicId } : { topicName, topicId: '' };
}

function resolve(request: FetchPartition, { broker }: RequestContext): Wanted {
  const byId = request.topicId !== '';
  const topic = byId ? broker.topics.byUuid(request.topicId) : broker.topics.get(request.topicName);
  const partition = topic && broker.log.partition(topic, request.partition);
  if (!partition) {
    const errorCode = byId && !topic ? ErrorCode.UNKNOWN_TOPIC_ID : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
    return { request, partition: undefined, errorCode };
  }
  return { request, partition, errorCode: leaderEpochProblem(request.currentLeaderEpoch, broker.log.epoch) };
}

/**
 * Reads the partitions in order until `maxBytes` are read. Each is promised what it may take; what Postgres must be asked
 * for is asked for at once, and what promises leave over goes to the partitions that come next.
 */
async function readAll(wanted: readonly Wanted[], maxBytes: number, context: RequestContext): Promise<Result[]> {
  const { budget, settings } = context.broker;
  let left = Math.min(
    maxBytes,
    settings.fetchMaxBytes,
    settings.connectionInFlightBytes,
    Math.max(budget.free, leastBytes),
  );
  let first = true;
  const results: Result[] = [];
  while (results.length < wanted.length) {
    const reads: Promise<Result>[] = [];
    let promisedBytes = 0;
    for (let i = results.length; i < wanted.length && (left > 0 || promisedBytes === 0); i++) {
      const want = wanted[i]!;
      const { request, partition, errorCode } = want;
      const hasMore = partition && errorCode === ErrorCode.NONE && request.fetchOffset < partition.highWatermark;
      const promised = hasMore ? Math.min(Math.max(request.maxBytes, 0), Math.max(left, 0)) : 0;
      left -= promised;
      promisedBytes += promised;
      reads.push(readOne(want, promised, Boolean(first && hasMore), context));
      if (hasMore) first = false;
    }
    for (const result of await Promise.all(reads)) {
      results.push(result);
      promisedBytes -= result.bytes;
    }
    left += promisedBytes;
  }
  return results;
}

async function readOne(
  want: Wanted,
  promised: number,
  atLeastOne: boolean,
  { broker }: RequestContext,
): Promise<Result> {
  const { request, partition, errorCode } = want;
  const refuse = (code: number): Result => ({ request, partition, errorCode: code, chunks: [], bytes: 0 });
  if (!partition || errorCode !== ErrorCode.NONE) return refuse(errorCode);
  if (partition.deleted) return refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
  // What comes from Postgres takes memory before it is an answer; the tail cache has its own.
  const { start } = partition.tail;
  const taken = start === undefined || request.fetchOffset < start ? promised : 0;
  broker.budget.takeAnswer(taken);
  try {
    const { error, chunks, bytes, release } = await broker.log.read(
      partition,
      request.fetchOffset,
      promised,
      atLeastOne,
    );
    return { request, partition, errorCode: error, chunks, bytes, release };
  } catch (error) {
    broker.logger.error({ err: error, partition: request.partition }, 'a read from Postgres failed');
    return refuse(ErrorCode.KAFKA_STORAGE_ERROR);
  } finally {
    broker.budget.giveAnswer(taken);
  }
}

function isTooLittle(results: readonly Result[], minBytes: number): boolean {
  let bytes = 0;
  for (const result of results) {
    if (result.errorCode !== ErrorCode.NONE) return false;
    bytes += result.bytes;
  }
  return bytes < minBytes;
}

function release(results: readonly Result[]): void {
  for (const result of results) result.release?.();
}

const stateOf = ({ partition, errorCode, bytes }: Result) => ({
  highWatermark: partition?.highWatermark ?? -1n,
  logStartOffset: partition?.logStartOffset ?? -1n,
  errorCode,
  bytes,
});

function toAnswer(result: Result): { request: FetchPartition; answer: PartitionAnswer } {
  const { highWatermark, logStartOffset, errorCode } = stateOf(result);
  return {
    request: result.request,
    answer: {
      partitionIndex: result.request.partition,
      errorCode,
      highWatermark,
      lastStableOffset: highWatermark,
      logStartOffset,
      abortedTransactions: null,
      records: result.chunks,
    },
  };
}

function group(answers: readonly { request: FetchPartition; answer: PartitionAnswer }[]) {
  const topics = new Map<string, { topic: string; topicId: string; partitions: PartitionAnswer[] }>();
  for (const { request, answer } of answers) {
    const key = request.topicId || request.topicName;
    const topic = topics.get(key);
    if (topic) topic.partitions.push(answer);
    else topics.set(key, { topic: request.topicName, topicId: request.topicId, partitions: [answer] });
  }
  return [...topics.values()];
}
