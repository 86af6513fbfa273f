// What a client is told when a change of topics did not happen.
import type { Logger } from 'pino';
import { ErrorCode } from '../protocol/errors.ts';
import { TopicError } from '../storage/topics.ts';
import { mayPass, sqlState } from '../storage/write-lane.ts';

export interface Outcome {
  readonly errorCode: ErrorCode;
  readonly errorMessage: string | null;
}

export const succeeded: Outcome = { errorCode: ErrorCode.NONE, errorMessage: null };

export function failed(errorCode: ErrorCode, errorMessage: string | null = null): Outcome {
  return { errorCode, errorMessage };
}

export function topicFailure(error: unknown, topic: string, logger: Logger): Outcome {
  if (error instanceof TopicError) return failed(error.code, error.message);
  logger.error({ err: error, topic }, 'a change of topics failed in the database');
  const state = sqlState(error);
  if (state === undefined) {
    return failed(ErrorCode.REQUEST_TIMED_OUT, 'the database did not answer; the change may or may not have been made');
  }
  return mayPass(state)
    ? failed(ErrorCode.REQUEST_TIMED_OUT, 'the database could not make the change at the moment')
    : failed(ErrorCode.UNKNOWN_SERVER_ERROR, 'the database refused the change; the reason is in the broker’s log');
}
