// What a remote cluster may do to its client. All carry `retriable`: whether the same may succeed later without anybody
// changing anything; the callers' loops go by it alone.
import { ErrorCode, type ErrorName, errorOf } from '../protocol/errors.ts';

export abstract class ClientError extends Error {
  abstract readonly retriable: boolean;
}

/** A broker answered with an error code. */
export class KafkaError extends ClientError {
  override name = 'KafkaError';
  readonly code: number;
  readonly error: ErrorName;
  readonly retriable: boolean;

  /** `subject`: what was asked for, such as a topic. `said`: what the broker added, if anything. */
  constructor(code: number, subject: string, said?: string | null) {
    const known = errorOf(code);
    super(`${subject}: ${known.name} (${said || known.text})`);
    this.code = code;
    this.error = known.name;
    this.retriable = known.retriable;
  }
}

/** No answer: it could not be reached, hung up, took too long, or said what cannot be read. What was asked may have been done. */
export class UnreachableError extends ClientError {
  override name = 'UnreachableError';
  readonly retriable = true;
}

/** The broker refuses the credentials, or proved not to know them itself. Somebody may mend that, so it is tried again. */
export class AuthenticationError extends ClientError {
  override name = 'AuthenticationError';
  readonly retriable = true;
}

/** It is not a cluster that this client can work with, or not the one it began with. */
export class IncompatibleError extends ClientError {
  override name = 'IncompatibleError';
  readonly retriable = false;
}

/** The client was closed; whether what it was asked has been done is not known. */
export class ClientClosedError extends ClientError {
  override name = 'ClientClosedError';
  readonly retriable = false;
  constructor() {
    super('the client has been closed');
  }
}

export const isRetriable = (error: unknown): boolean => error instanceof ClientError && error.retriable;

/** The partition's end is not what the sequence of an idempotent producer follows. */
export const isSequenceRefusal = (error: unknown): boolean =>
  error instanceof KafkaError && sequenceRefusals.includes(error.code);

const sequenceRefusals: readonly number[] = [
  ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
  ErrorCode.DUPLICATE_SEQUENCE_NUMBER,
  ErrorCode.UNKNOWN_PRODUCER_ID,
  ErrorCode.INVALID_PRODUCER_EPOCH,
];
