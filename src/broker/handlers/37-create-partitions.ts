// CreatePartitions, versions 0 to 3 (KIP-195): makes a topic's partitions more; they are never made fewer.
// Records stay where they are, so a key may from then on go to another partition, as on Kafka.
import { ErrorCode } from '../../protocol/errors.ts';
import { CreatePartitions } from '../../protocol/messages/37-create-partitions.ts';
import type { RequestOf } from '../../protocol/schema.ts';
import { checkPartitionIncrease, TopicError } from '../../storage/topics.ts';
import type { BrokerContext } from '../context.ts';
import { handler } from '../handler.ts';
import { repeatedIn } from '../repeated.ts';
import { checkReplicas, mostNewPartitions } from '../replica-assignment.ts';
import { failed, type Outcome, succeeded, topicFailure } from '../topic-failure.ts';

type Wanted = RequestOf<typeof CreatePartitions>['topics'][number];

export const createPartitions = handler(CreatePartitions, async ({ topics, validateOnly }, { broker }) => {
  const repeated = repeatedIn(topics, ({ name }) => name);
  const results = [];
  for (const wanted of topics) {
    if (repeated.has(wanted.name)) continue;
    results.push({ name: wanted.name, ...(await grow(wanted, validateOnly, broker)) });
  }
  for (const name of repeated) {
    results.push({ name, ...failed(ErrorCode.INVALID_REQUEST, 'the topic is named more than once') });
  }
  return { results };
});

async function grow(
  { name, count, assignments }: Wanted,
  validateOnly: boolean,
  broker: BrokerContext,
): Promise<Outcome> {
  const topic = broker.topics.get(name);
  if (topic === undefined) return failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
  try {
    checkPartitionIncrease(topic, count);
    const additional = count - topic.partitionCount;
    if (additional > mostNewPartitions) {
      throw new TopicError(ErrorCode.POLICY_VIOLATION, `a request may make ${mostNewPartitions} partitions at most`);
    }
    if (assignments !== null && assignments.length !== additional) {
      const message = `${additional} partitions are to be added, but ${assignments.length} are assigned`;
      throw new TopicError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message);
    }
    for (const { brokerIds } of assignments ?? []) checkReplicas(brokerIds, broker.nodeId);
    if (!validateOnly) {
      await broker.topics.addPartitions(topic, count);
      broker.logger.info({ topic: name, partitions: count }, 'partitions added');
    }
    return succeeded;
  } catch (error) {
    return topicFailure(error, name, broker.logger);
  }
}
