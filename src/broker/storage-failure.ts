// What a client is told of a partition when Postgres did not do what was needed: it asks again, as when a Kafka
// broker's disk fails or its partition moves.
import type { Logger } from 'pino';
import { ErrorCode } from '../protocol/errors.ts';
import { codeOf } from '../runtime/errors.ts';
import { fencedState } from '../storage/topics.ts';

export function storageFailure(error: unknown, topic: string, partition: number, logger: Logger): ErrorCode {
  if (codeOf(error) === fencedState) return ErrorCode.NOT_LEADER_OR_FOLLOWER;
  logger.error({ err: error, topic, partition }, 'Postgres did not do what a request of a partition needs');
  return ErrorCode.KAFKA_STORAGE_ERROR;
}
