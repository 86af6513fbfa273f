// Produce, versions 0 to 13 (13 names topics by id, KIP-516). Versions 0 to 2 carry message formats 0 and 1, which
// Kafka 4 no longer takes either: they are listed because librdkafka decides by them what a broker can do
// (KAFKA-18659), and answered with UNSUPPORTED_FOR_MESSAGE_FORMAT.
// A partition's records are one v2 batch. Its header, its CRC and the lengths of its records are checked; it is rewritten,
// off the event loop, only where the topic's compression.type asks for another codec than it has.
// The acknowledgement follows COMMIT; of a topic whose primary is elsewhere, or that waits for it, the mirror's word (AppendGate). With acks=0 nothing is answered, and an error closes the connection.
// Differs from Kafka: a transactional batch is refused, since transactions are not served.
import { ErrorCode, errorOf } from '../../protocol/errors.ts';
import { Produce } from '../../protocol/messages/00-produce.ts';
import type { RequestOf, ResponseOf } from '../../protocol/schema.ts';
import type { AppendResult, PendingAppend } from '../../storage/group.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import { effectiveConfig } from '../../storage/topic-config.ts';
import type { Topic } from '../../storage/topics.ts';
import type { RequestContext } from '../context.ts';
import { handler } from '../handler.ts';
import { checkBatch, storedForm } from '../produced-batch.ts';

/** For a commit, ms, where the producer sets no bound: an outage of Postgres must not keep its bytes for ever. */
const untoldWaitMs = 30_000;

type PartitionData = RequestOf<typeof Produce>['topicData'][number]['partitionData'][number];
type PartitionAnswer = ResponseOf<typeof Produce>['responses'][number]['partitionResponses'][number];

export const produce = handler(Produce, async (request, context) => {
  const { apiVersion, broker } = context;
  const begun = request.topicData.map(({ name, topicId, partitionData }) => {
    const topic = apiVersion >= 13 ? broker.topics.byUuid(topicId) : broker.topics.get(name);
    return { name, topicId, partitions: partitionData.map(data => begin(request.acks, topic, data, context)) };
  });
  // Batches that must be rewritten first hold back what follows them on this connection, so that order is kept.
  const rewriting = begun.flatMap(({ partitions }) => partitions.filter(partition => partition instanceof Promise));
  if (rewriting.length > 0) await Promise.all(rewriting);
  context.readyForNext();

  const pending: Appending[] = [];
  const answers = begun.map(async ({ name, topicId, partitions }) => ({
    name,
    topicId,
    partitionResponses: await Promise.all(
      (await Promise.all(partitions)).map(async partition => {
        if ('errorCode' in partition) return partition;
        pending.push(partition);
        return answerOf(partition, await partition.append.result);
      }),
    ),
  }));
  // Kafka's is a time for replicas, of which there are none here.
  const waitMs = request.acks === 0 || request.timeoutMs <= 0 ? untoldWaitMs : request.timeoutMs;
  const timer = setTimeout(() => {
    for (const appending of pending) {
      appending.expired = appending.append.expire(ErrorCode.REQUEST_TIMED_OUT);
      context.hold(appending.expired);
    }
  }, waitMs);
  const responses = await Promise.all(answers);
  clearTimeout(timer);
  if (request.acks !== 0) return { responses, throttleTimeMs: 0 };
  const failed = responses.flatMap(r => r.partitionResponses).find(p => p.errorCode !== ErrorCode.NONE);
  if (failed) context.closeConnection(`acks=0 produce failed: ${errorOf(failed.errorCode).name}`);
  return undefined;
});

/** A batch on its way into the log. */
interface Appending {
  readonly index: number;
  readonly partition: PartitionLog;
  readonly append: PendingAppend;
  /** When its time has passed: resolves when its bytes are needed no more. */
  expired?: Promise<void>;
}
type Begun = Appending | PartitionAnswer;

function begin(
  acks: number,
  topic: Topic | undefined,
  data: PartitionData,
  context: RequestContext,
): Begun | Promise<Begun> {
  const { broker, apiVersion } = context;
  const { index } = data;
  const refuse = (errorCode: number, errorMessage: string | null = null): PartitionAnswer => ({
    index,
    errorCode,
    baseOffset: -1n,
    recordErrors: [],
    errorMessage,
  });
  if (acks !== -1 && acks !== 0 && acks !== 1) return refuse(ErrorCode.INVALID_REQUIRED_ACKS);
  if (topic === undefined) {
    return refuse(apiVersion >= 13 ? ErrorCode.UNKNOWN_TOPIC_ID : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
  }
  const partition = broker.log.partition(topic, index);
  if (partition === undefined) return refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
  const settings = effectiveConfig(topic, broker.serverDefaults);
  const problem = checkBatch(data.records, apiVersion, settings, Date.now());
  if (problem) return refuse(problem.code, problem.message);
  const appendTime = settings.timestampType === 'LogAppendTime';
  const append = (batch: Buffer): Appending => ({
    index,
    partition,
    append: broker.log.append(topic, partition, batch, acks, appendTime),
  });
  const stored = storedForm(data.records!, settings, broker.inflation);
  if (Buffer.isBuffer(stored)) return append(stored);
  return stored.then(batch => {
    if (!Buffer.isBuffer(batch)) return refuse(batch.code, batch.message);
    const appending = append(batch);
    void appending.append.result.then(() => appending.expired).then(() => broker.inflation.give(batch.length));
    return appending;
  });
}

function answerOf({ index, partition }: Appending, result: AppendResult): PartitionAnswer {
  return {
    index,
    errorCode: result.error,
    baseOffset: result.baseOffset,
    logAppendTimeMs: result.logAppendTime,
    logStartOffset: result.error === ErrorCode.NONE ? partition.logStartOffset : -1n,
    recordErrors: [],
    errorMessage: null,
  };
}
