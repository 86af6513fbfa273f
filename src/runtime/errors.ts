// What goes wrong outside Millrace and has a remedy: a taken port, a database that cannot be reached, a bad
// setting. Bugs are plain errors and keep their stacks; an OperationalError is printed as one sentence.

export type OperationalCode =
  | 'BAD_SETTING'
  | 'BROKER_RUNNING'
  | 'DATA_DIRECTORY'
  | 'DATABASE_PERMISSION'
  | 'DATABASE_UNREACHABLE'
  | 'DATABASE_UNSUITABLE'
  | 'DATABASE_VERSION'
  | 'EMBEDDED_POSTGRES'
  | 'LISTEN'
  | 'REFUSED'
  | 'SCHEMA';

export interface OperationalDetails {
  readonly code: OperationalCode;
  /** The remedy, as the end of the sentence: "start it, or …". */
  readonly hint: string;
  /** Whether trying again without changing anything may work. */
  readonly retriable?: boolean;
  readonly cause?: unknown;
}

export class OperationalError extends Error {
  override name = 'OperationalError';
  readonly code: OperationalCode;
  readonly hint: string;
  readonly retriable: boolean;

  constructor(message: string, details: OperationalDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = details.code;
    this.hint = details.hint;
    this.retriable = details.retriable ?? false;
  }

  /** The one line that is shown to a person. */
  get sentence(): string {
    return `${this.message}; ${this.hint}`.replaceAll(/\s*\n\s*/g, ' ');
  }

  /** 2 for a mistake in the settings, as command lines have it; 1 for the rest. */
  get exitCode(): number {
    return this.code === 'BAD_SETTING' ? 2 : 1;
  }
}

/** The code of a system or Postgres error (`ECONNREFUSED`, `3D000`), if it has one. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** What an unknown thrown value says, for a log line or the end of a sentence. */
export function messageOf(error: unknown): string {
  // Node gives a failed connection to several addresses as an AggregateError without a message.
  if (error instanceof AggregateError && error.message === '' && error.errors.length > 0)
    return messageOf(error.errors[0]);
  return error instanceof Error ? error.message : String(error);
}
