// A record that does not fit its table. What happens then is the task's affair: a dead letter, or the sink stops.
export class BadRecord extends Error {
  override name = 'BadRecord';
  /** The column it is about, where there is one. */
  column: string | undefined;
  /** SQLSTATE where Postgres refused it, else CONVERSION. */
  readonly code: string;

  constructor(message: string, column?: string, code = 'CONVERSION') {
    super(message);
    this.column = column;
    this.code = code;
  }
}

/** A value that its column cannot have. The message tells what was expected. */
export class BadValue extends Error {
  override name = 'BadValue';

  constructor(expected: string, value: unknown) {
    super(`${expected} expected, not ${shown(value)}`);
  }
}

function shown(value: unknown): string {
  const text =
    typeof value === 'object' ? JSON.stringify(value) : typeof value === 'string' ? `"${value}"` : String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
