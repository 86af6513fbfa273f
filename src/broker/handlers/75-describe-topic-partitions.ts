// DescribeTopicPartitions, version 0 (KIP-966): topics in the order of their names, a limited number of partitions at
// a time; the cursor says where the next answer begins. There are no eligible leader replicas beside the leader.
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeTopicPartitions } from '../../protocol/messages/75-describe-topic-partitions.ts';
import { topicNameProblem } from '../../storage/topic-name.ts';
import { topicOperations } from '../authorized-operations.ts';
import { handler } from '../handler.ts';
import { partitionMetadata } from '../partition-metadata.ts';

const noUuid = '00000000-0000-0000-0000-000000000000';
/** Kafka's max.request.partition.size.limit. */
const mostPartitions = 2000;

export const describeTopicPartitions = handler(
  DescribeTopicPartitions,
  ({ topics, cursor, ...request }, { broker }) => {
    const all = topics.length === 0;
    const from = cursor?.topicName ?? '';
    const names = [...new Set(Array.from(all ? broker.topics.all() : topics, topic => topic.name))]
      .filter(name => name >= from)
      .sort();
    if (cursor !== null && (cursor.partitionIndex < 0 || (!all && names[0] !== cursor.topicName))) {
      const errorCode = ErrorCode.INVALID_REQUEST;
      return { topics: topics.map(({ name }) => ({ errorCode, name, topicId: noUuid, partitions: [] })) };
    }

    const answers = [];
    let left = Math.max(1, Math.min(mostPartitions, request.responsePartitionLimit));
    for (const name of names) {
      if (left === 0) return { topics: answers, nextCursor: { topicName: name, partitionIndex: 0 } };
      const topic = broker.topics.get(name);
      if (topic === undefined) {
        const errorCode =
          topicNameProblem(name) === undefined
            ? ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            : ErrorCode.INVALID_TOPIC_EXCEPTION;
        answers.push({ errorCode, name, topicId: noUuid, partitions: [], topicAuthorizedOperations: topicOperations });
        continue;
      }
      const first = name === from ? cursor!.partitionIndex : 0;
      const next = Math.min(first + left, topic.partitionCount);
      const partitions = partitionMetadata(topic, broker, first, next);
      answers.push({
        errorCode: ErrorCode.NONE,
        name,
        topicId: topic.uuid,
        partitions: partitions.map(partition => ({ ...partition, eligibleLeaderReplicas: [], lastKnownElr: [] })),
        topicAuthorizedOperations: topicOperations,
      });
      if (next < topic.partitionCount)
        return { topics: answers, nextCursor: { topicName: name, partitionIndex: next } };
      left -= partitions.length;
    }
    return { topics: answers };
  },
);
