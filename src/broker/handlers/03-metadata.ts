// Metadata, versions 0 to 13: the one broker, and topics by name, by id (KIP-516, from version 12), or all.
// A name nobody knows is made a topic where the request allows it (from version 4) and auto.create.topics.enable does.
// Differs from Kafka: the answer waits until the topic has been made, so the first answer already has it; topics are
// never internal.
import { ErrorCode } from '../../protocol/errors.ts';
import { Metadata } from '../../protocol/messages/03-metadata.ts';
import type { RequestOf } from '../../protocol/schema.ts';
import { topicNameProblem } from '../../storage/topic-name.ts';
import { type Topic, TopicError } from '../../storage/topics.ts';
import { clusterOperations, notAsked, topicOperations } from '../authorized-operations.ts';
import type { BrokerContext, RequestContext } from '../context.ts';
import { handler } from '../handler.ts';
import { partitionMetadata } from '../partition-metadata.ts';

const noUuid = '00000000-0000-0000-0000-000000000000';
type Request = RequestOf<typeof Metadata>;
type Wanted = NonNullable<Request['topics']>[number];

export const metadata = handler(Metadata, async (request, context) => {
  const { broker, apiVersion } = context;
  const wanted = request.topics?.length === 0 && apiVersion === 0 ? null : request.topics;
  const invalid = apiVersion < 12 && wanted?.some(({ name, topicId }) => name === null || topicId !== noUuid);
  return {
    brokers: [{ nodeId: broker.nodeId, ...broker.advertised }],
    clusterId: broker.clusterId,
    controllerId: broker.nodeId,
    topics: invalid
      ? wanted!.map(({ name, topicId }) => ({
          errorCode: ErrorCode.INVALID_REQUEST,
          name: name ?? '',
          topicId,
          partitions: [],
        }))
      : await describe(wanted, request, context),
    clusterAuthorizedOperations: request.includeClusterAuthorizedOperations ? clusterOperations : notAsked,
  };
});

async function describe(wanted: Wanted[] | null, request: Request, { broker }: RequestContext) {
  const authorized = request.includeTopicAuthorizedOperations ? topicOperations : notAsked;
  const found = (topic: Topic) => ({
    errorCode: ErrorCode.NONE,
    name: topic.name,
    topicId: topic.uuid,
    partitions: partitionMetadata(topic, broker),
    topicAuthorizedOperations: authorized,
  });
  if (wanted === null) return Array.from(broker.topics.all(), found);
  const missing = (errorCode: ErrorCode, name: string | null, topicId = noUuid) => ({
    errorCode,
    name,
    topicId,
    partitions: [],
    topicAuthorizedOperations: name === null ? notAsked : authorized,
  });
  const answers = [];
  const create = request.allowAutoTopicCreation && broker.settings.autoCreateTopicsEnable;
  for (const name of new Set(wanted.filter(({ topicId }) => topicId === noUuid).map(topic => topic.name ?? ''))) {
    const topic = broker.topics.get(name) ?? (await absent(name, create, broker));
    answers.push(typeof topic === 'number' ? missing(topic, name) : found(topic));
  }
  for (const uuid of new Set(wanted.map(({ topicId }) => topicId))) {
    if (uuid === noUuid) continue;
    const topic = broker.topics.byUuid(uuid);
    answers.push(topic === undefined ? missing(ErrorCode.UNKNOWN_TOPIC_ID, null, uuid) : found(topic));
  }
  return answers;
}

/** Makes the topic, or tells why there is none. */
async function absent(name: string, create: boolean, broker: BrokerContext): Promise<Topic | ErrorCode> {
  if (topicNameProblem(name) !== undefined) return ErrorCode.INVALID_TOPIC_EXCEPTION;
  if (!create) return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
  try {
    const partitionCount = broker.settings.numPartitions;
    const topic = await broker.topics.create({ name, partitionCount, config: {} });
    broker.logger.info({ topic: name, partitions: partitionCount }, 'topic made on first use');
    return topic;
  } catch (error) {
    if (error instanceof TopicError) {
      // Somebody else made it in the meantime.
      return (error.code === ErrorCode.TOPIC_ALREADY_EXISTS && broker.topics.get(name)) || error.code;
    }
    broker.logger.error({ err: error, topic: name }, 'a topic could not be made on first use');
    return ErrorCode.LEADER_NOT_AVAILABLE;
  }
}
