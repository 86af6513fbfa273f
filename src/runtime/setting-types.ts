// The types a setting can have: how its text is read, checked and written back. Text is what all sources have
// in common (flags, environment, millrace.yaml).

/** Thrown by `parse`; says what is expected, as the end of "…: expected". */
export class BadValue extends Error {}

export interface SettingType<T> {
  /** As documentation and --help name it. */
  readonly name: string;
  parse(text: string): T;
  format(value: T): string;
}

export interface Address {
  readonly host: string;
  readonly port: number;
}

export const text: SettingType<string> = { name: 'text', parse: value => value, format: value => value };

export const texts: SettingType<readonly string[]> = {
  name: 'text, text …',
  parse: value =>
    Object.freeze(
      value
        .split(',')
        .map(part => part.trim())
        .filter(part => part !== ''),
    ),
  format: value => value.join(','),
};

export const path: SettingType<string> = {
  name: 'path',
  parse(value) {
    if (value === '' || value.includes('\0')) throw new BadValue('a path');
    return value;
  },
  format: value => value,
};

export const boolean: SettingType<boolean> = {
  name: 'true or false',
  parse(value) {
    if (value === 'true') return true;
    if (value === 'false') return false;
    throw new BadValue('true or false');
  },
  format: String,
};

export function oneOf<const T extends string>(...values: readonly T[]): SettingType<T> {
  const expected = values.join(', ');
  return {
    name: expected,
    parse(value) {
      const found = values.find(candidate => candidate === value);
      if (found === undefined) throw new BadValue(`one of ${expected}`);
      return found;
    },
    format: value => value,
  };
}

interface Range {
  readonly min: number;
  readonly max?: number;
}

const int32Max = 2_147_483_647;
const binary = new Map([
  ['KiB', 2 ** 10],
  ['MiB', 2 ** 20],
  ['GiB', 2 ** 30],
  ['TiB', 2 ** 40],
]);
const durations = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
]);

export const count = (range: Range = { min: 0 }) => integer('number', new Map(), { max: int32Max, ...range });
export const minutes = (range: Range = { min: 0 }) => integer('minutes', new Map(), { max: int32Max, ...range });
/** Bytes that Kafka keeps in an int32: the size of a request or a batch. */
export const bytes32 = (range: Range = { min: 0 }) => integer('bytes', binary, { max: int32Max, ...range });
export const bytes = (range: Range = { min: 0 }) => integer('bytes', binary, range);
export const milliseconds = (range: Range = { min: 0 }) => integer('ms', durations, range);

/** A whole number, or one with a unit (`7d`, `32MiB`). */
function integer(name: string, units: ReadonlyMap<string, number>, range: Range): SettingType<number> {
  const max = range.max ?? Number.MAX_SAFE_INTEGER;
  const limits = max === Number.MAX_SAFE_INTEGER ? `of at least ${range.min}` : `from ${range.min} to ${max}`;
  const unitNames = units.size === 0 ? '' : `, or a number with one of ${[...units.keys()].join(' ')}`;
  return {
    name,
    parse(value) {
      const match = /^(-?\d+) ?([A-Za-z]*)$/.exec(value);
      const factor = match?.[2] === '' ? 1 : units.get(match?.[2] ?? '');
      const number = match && factor ? Number(match[1]) * factor : Number.NaN;
      if (!Number.isSafeInteger(number) || number < range.min || number > max) {
        throw new BadValue(`a whole number ${limits}${unitNames}`);
      }
      return number;
    },
    format(value) {
      // The largest unit that leaves a whole number, for people; a plain number reads the same.
      for (const [unit, factor] of [...units].reverse()) {
        if (factor > 1 && value >= factor && value % factor === 0) return `${value / factor}${unit}`;
      }
      return String(value);
    },
  };
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

export const address: SettingType<Address> = {
  name: 'host:port',
  parse(value) {
    const match = /^(?:\[([^\]]+)\]|([^:\s/]+)):(\d{1,5})$/.exec(value);
    const port = Number(match?.[3]);
    if (!match || port > 65_535) throw new BadValue('HOST:PORT, such as 127.0.0.1:9092 or [::1]:9092');
    return Object.freeze({ host: (match[1] ?? match[2])!, port });
  },
  format: formatAddress,
};

export const addresses: SettingType<readonly Address[]> = {
  name: 'host:port, …',
  parse: value => Object.freeze(value.split(',').map(part => address.parse(part.trim()))),
  format: value => value.map(formatAddress).join(','),
};

export function optional<T>(type: SettingType<T>): SettingType<T | null> {
  return {
    name: type.name,
    parse: value => (value === '' ? null : type.parse(value)),
    format: value => (value === null ? '' : type.format(value)),
  };
}
