// CreateTopics, versions 0 to 7. Each topic is made in a transaction of its own, or, with validateOnly, only checked.
// The answer comes when the topics can be used, whatever timeoutMs says. From version 4 a partition count of -1 is
// num.partitions; replicas are 1 or -1 (KIP-464). Configs in force come with the answer from version 5 (KIP-525).
// Differs from Kafka: a topic that is only validated has the zero id in the answer.
import { ErrorCode } from '../../protocol/errors.ts';
import { CreateTopics } from '../../protocol/messages/19-create-topics.ts';
import type { RequestOf, ResponseOf } from '../../protocol/schema.ts';
import { overridesProblem, topicConfigEntries } from '../../storage/topic-config.ts';
import { type NewTopic, TopicError } from '../../storage/topics.ts';
import { configSource } from '../config-resources.ts';
import type { BrokerContext } from '../context.ts';
import { handler } from '../handler.ts';
import { repeatedIn } from '../repeated.ts';
import { checkReplicas, mostNewPartitions } from '../replica-assignment.ts';
import { failed, topicFailure } from '../topic-failure.ts';

type Wanted = RequestOf<typeof CreateTopics>['topics'][number];
type Result = ResponseOf<typeof CreateTopics>['topics'][number];

export const createTopics = handler(CreateTopics, async ({ topics, validateOnly }, { broker }) => {
  const partitions = topics.reduce((sum, wanted) => sum + Math.max(0, partitionCount(wanted, broker)), 0);
  if (partitions > mostNewPartitions) {
    const outcome = failed(
      ErrorCode.POLICY_VIOLATION,
      `a request may make ${mostNewPartitions} partitions at most, this one asks for ${partitions}`,
    );
    return { topics: Array.from(new Set(topics.map(({ name }) => name)), name => ({ name, ...outcome })) };
  }
  const repeated = repeatedIn(topics, ({ name }) => name);
  const results: Result[] = [];
  for (const wanted of topics) {
    if (!repeated.has(wanted.name)) results.push(await create(wanted, validateOnly, broker));
  }
  for (const name of repeated) {
    results.push({ name, ...failed(ErrorCode.INVALID_REQUEST, 'the topic is named more than once') });
  }
  return { topics: results };
});

async function create(wanted: Wanted, validateOnly: boolean, broker: BrokerContext): Promise<Result> {
  const { name } = wanted;
  try {
    broker.topics.checkName(name);
    const topic = checked(wanted, broker);
    const made = validateOnly ? undefined : await broker.topics.create(topic);
    if (made !== undefined) {
      broker.logger.info({ topic: name, partitions: made.partitionCount, config: made.config }, 'topic made');
    }
    return {
      name,
      topicId: made?.uuid,
      errorCode: ErrorCode.NONE,
      numPartitions: topic.partitionCount,
      replicationFactor: 1,
      configs: topicConfigEntries(topic.config, broker.serverDefaults).map(({ spec, value, source }) => ({
        name: spec.name,
        value,
        readOnly: false,
        configSource: configSource[source],
        isSensitive: false,
      })),
    };
  } catch (error) {
    return { name, ...topicFailure(error, name, broker.logger) };
  }
}

/** The topic as it would be made; throws a TopicError where it may not be. */
function checked(wanted: Wanted, broker: BrokerContext): NewTopic {
  const { name, numPartitions, replicationFactor, assignments } = wanted;
  const refuse = (code: ErrorCode, message: string) => new TopicError(code, message);

  const empty = wanted.configs.find(({ value }) => value === null);
  if (empty !== undefined) throw refuse(ErrorCode.INVALID_CONFIG, `${empty.name} has no value`);
  const config = Object.fromEntries(wanted.configs.map(each => [each.name, each.value!]));
  const problem = overridesProblem(config, broker.serverDefaults);
  if (problem !== undefined) throw refuse(ErrorCode.INVALID_CONFIG, problem);

  if (assignments.length > 0) {
    if (replicationFactor !== -1 || numPartitions !== -1) {
      throw refuse(
        ErrorCode.INVALID_REQUEST,
        'with assignments, the numbers of partitions and replicas are to be left open (-1)',
      );
    }
    checkAssignments(assignments, broker.nodeId);
  } else if (replicationFactor < -1 || replicationFactor === 0) {
    throw refuse(ErrorCode.INVALID_REPLICATION_FACTOR, 'the replication factor is 1, or -1 for the default');
  } else if (numPartitions < -1 || numPartitions === 0) {
    throw refuse(ErrorCode.INVALID_PARTITIONS, 'a topic has at least 1 partition; -1 stands for num.partitions');
  } else if (replicationFactor > 1) {
    throw refuse(
      ErrorCode.INVALID_REPLICATION_FACTOR,
      `there are not ${replicationFactor} brokers but 1: a partition has 1 copy here, and Postgres replicates it`,
    );
  }
  return { name, partitionCount: partitionCount(wanted, broker), config };
}

function checkAssignments(assignments: Wanted['assignments'], nodeId: number): void {
  const refuse = (message: string) => new TopicError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message);
  const [twice] = repeatedIn(assignments, ({ partitionIndex }) => partitionIndex);
  if (twice !== undefined) throw refuse(`partition ${twice} is assigned twice`);
  for (const { partitionIndex, brokerIds } of assignments) {
    if (partitionIndex < 0 || partitionIndex >= assignments.length) {
      throw refuse(`partitions are numbered from 0 without gaps; ${partitionIndex} does not fit`);
    }
    checkReplicas(brokerIds, nodeId);
  }
}

function partitionCount({ assignments, numPartitions }: Wanted, { settings }: BrokerContext): number {
  if (assignments.length > 0) return assignments.length;
  return numPartitions === -1 ? settings.numPartitions : numPartitions;
}
