// Replica assignments that a client makes itself. There is one broker and one copy, so the only one that can be
// obeyed is that broker, alone.
import { ErrorCode } from '../protocol/errors.ts';
import { TopicError } from '../storage/topics.ts';

/** Throws a TopicError. */
export function checkReplicas(brokerIds: readonly number[], nodeId: number): void {
  const refuse = (message: string) => new TopicError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message);
  if (brokerIds.length === 0) throw refuse('a partition is assigned to no broker');
  const unknown = brokerIds.find(id => id !== nodeId);
  if (unknown !== undefined) throw refuse(`there is no broker ${unknown}, only broker ${nodeId}`);
  if (brokerIds.length > 1) throw refuse(`a partition is assigned to broker ${nodeId} more than once`);
}

/** So many rows one transaction may insert; Kafka has the same bound. */
export const mostNewPartitions = 10_000;
