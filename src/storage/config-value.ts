// Values of Kafka configs: text on the wire and in the database, read by the type that Kafka gives the config.

export type ConfigType = 'boolean' | 'string' | 'int' | 'long' | 'double' | 'list';
export type ConfigValue = boolean | string | number | bigint | readonly string[];

export interface ConfigSpec {
  readonly name: string;
  readonly type: ConfigType;
  readonly min?: number;
  readonly max?: number;
  /** Within the bounds, but not allowed. */
  readonly except?: number;
  /** What a string may be, or each entry of a list. */
  readonly allowed?: readonly string[];
  readonly pattern?: RegExp;
}

export class ConfigValueError extends Error {
  override name = 'ConfigValueError';
  constructor(name: string, text: string, problem: string) {
    super(`invalid value '${text}' for ${name}: ${problem}`);
  }
}

const whole = { int: 32, long: 64 } as const;

/** Throws ConfigValueError. */
export function parseConfigValue(spec: ConfigSpec, text: string): ConfigValue {
  const refuse = (problem: string): never => {
    throw new ConfigValueError(spec.name, text, problem);
  };
  const trimmed = text.trim();
  switch (spec.type) {
    case 'boolean': {
      const lower = trimmed.toLowerCase();
      if (lower !== 'true' && lower !== 'false') refuse('it must be true or false');
      return lower === 'true';
    }
    case 'string':
      if (spec.allowed !== undefined && !spec.allowed.includes(trimmed)) refuse(oneOf(spec.allowed));
      return trimmed;
    case 'list': {
      const entries = trimmed === '' ? [] : trimmed.split(/\s*,\s*/);
      const { allowed, pattern } = spec;
      if (allowed !== undefined && !entries.every(entry => allowed.includes(entry))) {
        refuse(`each entry ${oneOf(allowed).slice('it '.length)}`);
      }
      if (pattern !== undefined && !entries.every(entry => pattern.test(entry))) {
        refuse(`each entry must match ${pattern.source}`);
      }
      return entries;
    }
    case 'double': {
      const number = Number(trimmed);
      if (trimmed === '' || !Number.isFinite(number)) refuse('it must be a number');
      checkRange(spec, number, refuse);
      return number;
    }
    case 'int':
    case 'long': {
      const bits = whole[spec.type];
      const number = /^[+-]?\d{1,20}$/.test(trimmed) ? BigInt(trimmed.replace(/^\+/, '')) : undefined;
      if (number === undefined || BigInt.asIntN(bits, number) !== number)
        return refuse(`it must be a ${bits}-bit integer`);
      checkRange(spec, number, refuse);
      return spec.type === 'int' ? Number(number) : number;
    }
  }
}

/** The value as Kafka's tools print it. */
export function formatConfigValue(value: ConfigValue): string {
  return Array.isArray(value) ? value.join(',') : String(value);
}

function checkRange(
  { min, max, except }: ConfigSpec,
  number: number | bigint,
  refuse: (problem: string) => never,
): void {
  if (min !== undefined && number < min) refuse(`it must be at least ${min}`);
  if (max !== undefined && number > max) refuse(`it must be at most ${max}`);
  if (except !== undefined && Number(number) === except) refuse(`it may not be ${except}`);
}

function oneOf(allowed: readonly string[]): string {
  return `it must be one of ${allowed.join(', ')}`;
}
