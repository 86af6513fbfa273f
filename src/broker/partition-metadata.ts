// What Metadata and DescribeTopicPartitions say of every partition: one copy, led here. The copies that matter
// are those of Postgres.
import type { Topic } from '../storage/topics.ts';
import type { BrokerContext } from './context.ts';

export function partitionMetadata(topic: Topic, broker: BrokerContext, from = 0, to = topic.partitionCount) {
  const { nodeId, log } = broker;
  // Shared by all partitions: a topic of ten thousand is described in one answer.
  const nodes = [nodeId];
  const none: number[] = [];
  return Array.from({ length: Math.max(0, to - from) }, (_, index) => ({
    errorCode: 0,
    partitionIndex: from + index,
    leaderId: nodeId,
    leaderEpoch: log.epoch,
    replicaNodes: nodes,
    isrNodes: nodes,
    offlineReplicas: none,
  }));
}
