// Fetch, versions 4 to 18: sessions (KIP-227), topic ids from 13 (KIP-516), min bytes and max wait over all partitions of
// the request, max bytes over all and per partition, where the first batch always comes (KIP-74). Stored bytes go to
// the socket as they are. There are no open transactions, so the last stable offset is the high watermark and no
// transaction is ever reported as aborted.
// A partition whose primary is elsewhere may refuse with NOT_LEADER_OR_FOLLOWER (mirrors, `reads: redirect`).
// Differs from Kafka: a batch lies wholly below the high watermark, so the log can be cut only at batches.
import { ErrorCode } from '../../protocol/errors.ts';
import { Fetch } from '../../protocol/messages/01-fetch.ts';
import type { RequestOf, ResponseOf } from '../../protocol/schema.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import type { ReadResult } from '../../storage/stored-log.ts';
import type { BrokerContext, RequestContext } from '../context.ts';
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
      forgottenOf(request, context),
    );
    if ('errorCode' in session) return { errorCode: session.errorCode, sessionId: 0, responses: [] };

    const wanted = session.partitions.map(partition => resolve(partition, context));
    const deadline = performance.now() + request.maxWaitMs;
    const partitions = wanted.map(({ partition }) => partition).filter(partition => partition !== undefined);
    let ends = partitions.map(partition => partition.highWatermark);
    let results = await readAll(wanted, request.maxBytes, context);
    // Of no partitions nothing will ever come: so a consumer ends its session.
    while (wanted.length > 0 && isTooLittle(results, request.minBytes)) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0 || context.ending.begun) break;
      release(results);
      // What moved while others were read from Postgres has woken nobody.
      const moved = partitions.some((partition, i) => partition.highWatermark !== ends[i]);
      if (!moved) await awaitChange(partitions, leftMs, context.ending);
      ends = partitions.map(partition => partition.highWatermark);
      results = await readAll(wanted, request.maxBytes, context);
    }
    const sent = results;
    context.whenSent(() => release(sent));
    return {
      throttleTimeMs: 0,
      errorCode: ErrorCode.NONE,
      sessionId: session.sessionId,
      responses: group(results.filter(result => session.include(result.request, stateOf(result)))),
    };
  },
  [4, 18],
);

/**
 * The partitions as the client names them: by id from version 13, by name before. The other half stays empty. In loops,
 * field by field: with flatMap and spread this took a tenth of a small Fetch's time.
 */
function partitionsOf({ topics }: RequestOf<typeof Fetch>, { apiVersion }: RequestContext): FetchPartition[] {
  const byId = apiVersion >= 13;
  const named: FetchPartition[] = [];
  for (const { topic, topicId, partitions } of topics) {
    for (const { partition, currentLeaderEpoch, fetchOffset, lastFetchedEpoch, partitionMaxBytes } of partitions) {
      named.push({
        topicName: byId ? '' : topic,
        topicId: byId ? topicId : '',
        partition,
        currentLeaderEpoch,
        fetchOffset,
        lastFetchedEpoch,
        maxBytes: partitionMaxBytes,
      });
    }
  }
  return named;
}

function forgottenOf({ forgottenTopicsData }: RequestOf<typeof Fetch>, { apiVersion }: RequestContext) {
  return forgottenTopicsData.flatMap(({ topic, topicId, partitions }) => {
    const name = apiVersion >= 13 ? { topicName: '', topicId } : { topicName: topic, topicId: '' };
    return partitions.map(partition => ({ ...name, partition }));
  });
}

function resolve(request: FetchPartition, { broker }: RequestContext): Wanted {
  const byId = request.topicId !== '';
  const topic = byId ? broker.topics.byUuid(request.topicId) : broker.topics.get(request.topicName);
  const partition = topic && broker.log.partition(topic, request.partition);
  if (!partition) {
    const errorCode = byId && !topic ? ErrorCode.UNKNOWN_TOPIC_ID : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
    return { request, partition: undefined, errorCode };
  }
  if (partition.refusesReads) return { request, partition, errorCode: ErrorCode.NOT_LEADER_OR_FOLLOWER };
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
    const reads: (Result | Promise<Result>)[] = [];
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
    const finished = reads.some(read => read instanceof Promise) ? await Promise.all(reads) : (reads as Result[]);
    for (const result of finished) {
      results.push(result);
      promisedBytes -= result.bytes;
    }
    left += promisedBytes;
  }
  return results;
}

/** A promise only where Postgres is read. */
function readOne(
  want: Wanted,
  promised: number,
  atLeastOne: boolean,
  { broker }: RequestContext,
): Result | Promise<Result> {
  const { request, partition, errorCode } = want;
  if (!partition || errorCode !== ErrorCode.NONE) return refused(want, errorCode);
  if (partition.deleted) return refused(want, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
  const read = broker.log.read(partition, request.fetchOffset, promised, atLeastOne);
  return read instanceof Promise ? readStored(want, read, promised, broker) : found(want, read);
}

async function readStored(
  want: Wanted,
  read: Promise<ReadResult>,
  promised: number,
  { budget, logger }: BrokerContext,
): Promise<Result> {
  // What comes from Postgres takes memory before it is an answer; the tail cache has its own.
  budget.takeAnswer(promised);
  try {
    return found(want, await read);
  } catch (error) {
    logger.error({ err: error, partition: want.request.partition }, 'a read from Postgres failed');
    return refused(want, ErrorCode.KAFKA_STORAGE_ERROR);
  } finally {
    budget.giveAnswer(promised);
  }
}

function found({ request, partition }: Wanted, { error, chunks, bytes, release }: ReadResult): Result {
  return { request, partition, errorCode: error, chunks, bytes, release };
}

const refused = ({ request, partition }: Wanted, errorCode: number): Result => ({
  request,
  partition,
  errorCode,
  chunks: [],
  bytes: 0,
});

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

function toAnswer(result: Result): PartitionAnswer {
  const { highWatermark, logStartOffset, errorCode } = stateOf(result);
  return {
    partitionIndex: result.request.partition,
    errorCode,
    highWatermark,
    lastStableOffset: highWatermark,
    logStartOffset,
    abortedTransactions: null,
    records: result.chunks,
  };
}

function group(results: readonly Result[]) {
  const topics = new Map<string, { topic: string; topicId: string; partitions: PartitionAnswer[] }>();
  for (const result of results) {
    const { topicId, topicName } = result.request;
    const key = topicId || topicName;
    const topic = topics.get(key);
    if (topic) topic.partitions.push(toAnswer(result));
    else topics.set(key, { topic: topicName, topicId, partitions: [toAnswer(result)] });
  }
  return [...topics.values()];
}
