// A column's text, as Postgres prints it, to JSON: one converter per column, chosen when its relation is first seen.
// Two styles: `debezium` writes what Debezium's connector does in its default modes (adaptive times, precise decimals),
// `plain` what a person would. The session that prints has DateStyle ISO, TimeZone UTC, IntervalStyle postgres,
// extra_float_digits 3, bytea_output hex and lc_monetary C (source-session.ts).
import { microsPerDay } from '../postgres/calendar.ts';
import { type ArrayElements, readArray } from './array-text.ts';
import type { JsonBuffer } from './json-buffer.ts';
import { infinitySign, parseDate, parsed, parseTime, parseTimestamp, parseZone } from './timestamps.ts';

export type Converter = (out: JsonBuffer, bytes: Buffer, start: number, end: number) => void;

export interface ValueStyle {
  readonly style: 'debezium' | 'plain';
  /** precise: base64 of the unscaled number, as Kafka Connect's Decimal; double may lose digits. */
  readonly decimals: 'precise' | 'string' | 'double';
  readonly binary: 'base64' | 'base64-url-safe' | 'hex';
}

/** A row of pg_type, as far as it matters. */
export interface TypeInfo {
  readonly oid: number;
  readonly name: string;
  /** pg_type.typtype: b base, c composite, d domain, e enum, r range, m multirange. */
  readonly kind: string;
  /** Of an array, else 0. */
  readonly elementOid: number;
  /** Of a domain, else 0. */
  readonly baseOid: number;
  readonly baseModifier: number;
  /** The element type's: a comma, but for box. */
  readonly delimiter: string;
  /** Of an enum, in their order. */
  readonly labels: readonly string[];
}

export type TypeLookup = (oid: number) => TypeInfo | undefined;

/** Of types that are built in. */
export const oid = {
  bool: 16,
  bytea: 17,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  oid: 26,
  json: 114,
  xml: 142,
  float4: 700,
  float8: 701,
  point: 600,
  money: 790,
  bpchar: 1042,
  varchar: 1043,
  date: 1082,
  time: 1083,
  timestamp: 1114,
  timestamptz: 1184,
  interval: 1186,
  timetz: 1266,
  bit: 1560,
  varbit: 1562,
  numeric: 1700,
  uuid: 2950,
  tsvector: 3614,
  jsonb: 3802,
} as const;

const maxDomainDepth = 32;

export function converterFor(
  typeOid: number,
  modifier: number,
  style: ValueStyle,
  types: TypeLookup,
  depth = 0,
): Converter {
  const builtIn = builtInConverter(typeOid, modifier, style);
  if (builtIn) return builtIn;
  const type = types(typeOid);
  if (type?.kind === 'd' && depth < maxDomainDepth) {
    return converterFor(type.baseOid, modifier >= 0 ? modifier : type.baseModifier, style, types, depth + 1);
  }
  if (type?.name === 'hstore' && style.style === 'debezium') return hstore;
  if (type !== undefined && type.elementOid !== 0) {
    return arrayConverter(converterFor(type.elementOid, modifier, style, types), type.delimiter);
  }
  return text;
}

function builtInConverter(typeOid: number, modifier: number, style: ValueStyle): Converter | undefined {
  const debezium = style.style === 'debezium';
  const precision = modifier >= 0 ? modifier : 6;
  switch (typeOid) {
    case oid.bool:
      return boolean;
    case oid.int2:
    case oid.int4:
    case oid.int8:
    case oid.oid:
      return verbatim;
    case oid.float4:
    case oid.float8:
      return float;
    case oid.numeric:
      return numericConverter(modifier, style);
    case oid.money:
      return moneyConverter(style);
    case oid.bytea:
      return binaryConverter(style.binary);
    case oid.json:
    case oid.jsonb:
      return debezium ? text : verbatim;
    case oid.bit:
    case oid.varbit:
      if (!debezium) return text;
      return typeOid === oid.bit && modifier === 1 ? bit : bits;
    case oid.date:
      return debezium ? epochDays : isoTimestamp;
    case oid.time:
      if (!debezium) return text;
      return precision > 3 ? microsOfDay : millisOfDay;
    case oid.timetz:
      return debezium ? zonedTime : text;
    case oid.timestamp:
      if (!debezium) return isoTimestamp;
      return precision > 3 ? epochMicros : epochMillis;
    case oid.timestamptz:
      return debezium ? zonedTimestampConverter(precision) : isoTimestamp;
    case oid.interval:
      return debezium ? intervalMicros : text;
    case oid.point:
      return debezium ? point : text;
    default:
      return undefined;
  }
}

const text: Converter = (out, bytes, start, end) => out.string(bytes, start, end);
const verbatim: Converter = (out, bytes, start, end) => out.raw(bytes, start, end);
const boolean: Converter = (out, bytes, start) => out.ascii(bytes[start] === 0x74 ? 'true' : 'false');

/** NaN and the infinities are no numbers in JSON. */
const float: Converter = (out, bytes, start, end) => {
  const last = bytes[end - 1]!;
  if (last >= 0x30 && last <= 0x39) out.raw(bytes, start, end);
  else out.string(bytes, start, end);
};

function writeNumber(out: JsonBuffer, value: number | bigint): void {
  out.ascii(String(value));
}

/** Days and microseconds as one number; bigint beyond 2^53, some 285 years from 1970. */
function microsOf(days: number, micros: number): number | bigint {
  const total = days * microsPerDay + micros;
  return Number.isSafeInteger(total) ? total : BigInt(days) * BigInt(microsPerDay) + BigInt(micros);
}

// Debezium's numbers for dates and times without end.
const infiniteDays = { '1': '-2147472692', '-1': '-2147472691' } as const;
const infiniteMicros = { '1': '9223372036825200000', '-1': '-9223372036832400000' } as const;
const infiniteMillis = { '1': '9223372036825200', '-1': '-9223372036832400' } as const;

const epochDays: Converter = (out, bytes, start, end) => {
  const sign = infinitySign(bytes, start);
  if (sign !== 0) return out.ascii(infiniteDays[sign]);
  parseDate(bytes, start, end);
  writeNumber(out, parsed.days);
};

const epochMicros: Converter = (out, bytes, start, end) => {
  const sign = infinitySign(bytes, start);
  if (sign !== 0) return out.ascii(infiniteMicros[sign]);
  parseTimestamp(bytes, start, end);
  writeNumber(out, microsOf(parsed.days, parsed.micros));
};

const epochMillis: Converter = (out, bytes, start, end) => {
  const sign = infinitySign(bytes, start);
  if (sign !== 0) return out.ascii(infiniteMillis[sign]);
  parseTimestamp(bytes, start, end);
  writeNumber(out, parsed.days * 86_400_000 + Math.floor(parsed.micros / 1000));
};

const microsOfDay: Converter = (out, bytes, start, end) => {
  parseTime(bytes, start, end);
  writeNumber(out, parsed.micros);
};

const millisOfDay: Converter = (out, bytes, start, end) => {
  parseTime(bytes, start, end);
  writeNumber(out, Math.floor(parsed.micros / 1000));
};

const pad = (value: number, digits: number): string => String(value).padStart(digits, '0');

function writeClock(out: JsonBuffer, micros: number, digits: number): void {
  const seconds = Math.floor(micros / 1_000_000);
  out.ascii(`${pad(Math.floor(seconds / 3600), 2)}:${pad(Math.floor(seconds / 60) % 60, 2)}:${pad(seconds % 60, 2)}`);
  if (digits > 0) out.ascii(`.${pad(micros % 1_000_000, 6).slice(0, digits)}`);
}

/** In UTC, with as many digits of a second as there are. */
const zonedTime: Converter = (out, bytes, start, end) => {
  parseTime(bytes, start, end);
  const zone = parseZone(bytes, parsed.at, end);
  const micros = (((parsed.micros - zone * 1_000_000) % microsPerDay) + microsPerDay) % microsPerDay;
  const digits = pad(micros % 1_000_000, 6).replace(/0+$/, '').length;
  out.byte(0x22);
  writeClock(out, micros, digits);
  out.ascii('Z"');
};

function zonedTimestampConverter(precision: number): Converter {
  return (out, bytes, start, end) => {
    // Of a year of four digits the text is nearly the JSON: 2024-02-29 12:34:56.789+00. Copying it takes a sixth of the time.
    if (bytes[start + 4] === 0x2d && bytes[end - 3] === 0x2b) return copyTimestamp(out, bytes, start, end, precision);
    if (infinitySign(bytes, start) !== 0) return out.string(bytes, start, end);
    parseTimestamp(bytes, start, end);
    const { year } = parsed;
    const magnitude = pad(Math.abs(year), 4);
    const sign = year < 0 ? '-' : year > 9999 ? '+' : '';
    out.ascii(`"${sign}${magnitude}-${pad(parsed.month, 2)}-${pad(parsed.day, 2)}T`);
    writeClock(out, parsed.micros, precision);
    out.ascii('Z"');
  };
}

const dateBytes = 10;
const toSecondsBytes = 19;

/** The session's TimeZone is UTC, so the zone is +00; Postgres leaves zeros at the end of a fraction out. */
function copyTimestamp(out: JsonBuffer, bytes: Buffer, start: number, end: number, precision: number): void {
  const digits = end - 3 - start - toSecondsBytes - 1;
  out.byte(0x22);
  out.raw(bytes, start, start + dateBytes);
  out.byte(0x54);
  out.raw(bytes, start + dateBytes + 1, start + toSecondsBytes);
  if (precision > 0) {
    out.byte(0x2e);
    if (digits > 0)
      out.raw(bytes, start + toSecondsBytes + 1, start + toSecondsBytes + 1 + Math.min(digits, precision));
    for (let written = Math.max(digits, 0); written < precision; written++) out.byte(0x30);
  }
  out.byte(0x5a);
  out.byte(0x22);
}

/** Postgres's own text with a T between date and time, and Z for +00. */
const isoTimestamp: Converter = (out, bytes, start, end) => {
  const from = out.at + 1;
  out.string(bytes, start, end);
  const space = bytes.indexOf(0x20, start);
  if (space >= 0 && space < end && bytes[space + 1] !== 0x42) out.bytes[from + space - start] = 0x54;
  if (bytes[end - 3] === 0x2b && bytes[end - 2] === 0x30 && bytes[end - 1] === 0x30) {
    out.at -= 4;
    out.ascii('Z"');
  }
};

/** A month counts 30.4375 days. Postgres prints 1 year 2 mons -3 days 04:05:06.789. */
const intervalMicros: Converter = (out, bytes, start, end) => {
  let micros = 0n;
  for (const [, number, unit, sign, clock] of bytes
    .toString('latin1', start, end)
    .matchAll(/([-+]?\d+) (year|mon|day)s?|([-+]?)(\d+:\d\d:\d\d(?:\.\d+)?)/g)) {
    if (clock !== undefined) {
      const [hours, minutes, seconds] = clock.split(':');
      const [whole, fraction = ''] = seconds!.split('.');
      const total =
        (BigInt(hours!) * 3600n + BigInt(minutes!) * 60n + BigInt(whole!)) * 1_000_000n +
        BigInt(fraction.padEnd(6, '0'));
      micros += sign === '-' ? -total : total;
    } else if (unit === 'day') {
      micros += BigInt(number!) * 86_400_000_000n;
    } else {
      micros += BigInt(number!) * (unit === 'year' ? 12n : 1n) * 2_629_800_000_000n;
    }
  }
  writeNumber(out, micros);
};

const point: Converter = (out, bytes, start, end) => {
  const [x = '', y = ''] = bytes.toString('latin1', start + 1, end - 1).split(',');
  const wkb = Buffer.alloc(21);
  wkb[0] = 1;
  wkb.writeInt32LE(1, 1);
  wkb.writeDoubleLE(Number(x), 5);
  wkb.writeDoubleLE(Number(y), 13);
  const json = (coordinate: string) => (/\d$/.test(coordinate) ? coordinate : `"${coordinate}"`);
  out.ascii(`{"x":${json(x)},"y":${json(y)},"wkb":"${wkb.toString('base64')}","srid":null}`);
};

const bit: Converter = (out, bytes, start) => out.ascii(bytes[start] === 0x31 ? 'true' : 'false');

/** The last bit is the lowest of the first byte. */
const bits: Converter = (out, bytes, start, end) => {
  const packed = Buffer.alloc(Math.ceil((end - start) / 8));
  for (let i = 0; i < end - start; i++) {
    if (bytes[end - 1 - i] === 0x31) packed[i >> 3]! |= 1 << (i & 7);
  }
  out.ascii(`"${packed.toString('base64')}"`);
};

const hstorePair = /"((?:[^"\\]|\\.)*)"=>(?:NULL|"((?:[^"\\]|\\.)*)")/gs;
const unescaped = (text: string): string => text.replaceAll(/\\(.)/gs, '$1');

/** "a"=>"1", "b"=>NULL as the text of a JSON object. */
const hstore: Converter = (out, bytes, start, end) => {
  const pairs = bytes.toString('utf8', start, end).matchAll(hstorePair);
  const object = Array.from(pairs, ([, key, value]) => [
    unescaped(key!),
    value === undefined ? null : unescaped(value),
  ]);
  out.text(JSON.stringify(Object.fromEntries(object)));
};

function binaryConverter(mode: ValueStyle['binary']): Converter {
  return (out, bytes, start, end) => {
    if (mode === 'hex') {
      out.byte(0x22);
      out.raw(bytes, start + 2, end);
      out.byte(0x22);
      return;
    }
    const length = (end - start - 2) / 2;
    const decoded = Buffer.allocUnsafe(length);
    for (let i = 0, at = start + 2; i < length; i++, at += 2) {
      decoded[i] = (hexValue(bytes[at]!) << 4) | hexValue(bytes[at + 1]!);
    }
    out.ascii(`"${binaryText(decoded, mode)}"`);
  };
}

export function binaryText(bytes: Buffer, mode: ValueStyle['binary']): string {
  if (mode === 'hex') return bytes.toString('hex');
  const encoded = bytes.toString('base64');
  return mode === 'base64' ? encoded : encoded.replaceAll('+', '-').replaceAll('/', '_');
}

const hexValue = (byte: number): number => (byte <= 0x39 ? byte - 0x30 : byte - 0x57);

function numericConverter(modifier: number, { decimals }: ValueStyle): Converter {
  if (decimals === 'string') return text;
  if (decimals === 'double') {
    return (out, bytes, start, end) => {
      const number = Number(bytes.toString('latin1', start, end));
      out.ascii(Number.isFinite(number) ? String(number) : `"${number}"`);
    };
  }
  const fixedScale = modifier >= 0;
  return (out, bytes, start, end) => {
    const value = bytes.toString('latin1', start, end);
    // NaN and, from 14 on, Infinity: Connect's Decimal has no such values.
    if (!/\d$/.test(value)) return out.string(bytes, start, end);
    if (fixedScale) return out.ascii(`"${unscaledBase64(value)}"`);
    const stripped = value.includes('.') ? value.replace(/\.?0+$/, '') : value;
    const dot = stripped.indexOf('.');
    const scale = dot < 0 ? 0 : stripped.length - dot - 1;
    out.ascii(`{"scale":${scale},"value":"${unscaledBase64(stripped)}"}`);
  };
}

/** Kafka Connect's Decimal: the digits without the point as big-endian two's complement. */
function unscaledBase64(decimal: string): string {
  const digits = decimal.replace('.', '');
  if (digits.length <= 15) return smallBase64(Number(digits));
  const value = BigInt(digits);
  const negative = value < 0n;
  // A positive number whose top bit is set takes a byte more, for the sign.
  let hex = (negative ? -value - 1n : value).toString(16);
  if (hex.length % 2 === 1) hex = `0${hex}`;
  else if (Number.parseInt(hex[0]!, 16) >= 8) hex = `00${hex}`;
  const bytes = Buffer.from(hex, 'hex');
  if (negative) for (let i = 0; i < bytes.length; i++) bytes[i]! ^= 0xff;
  return bytes.toString('base64');
}

const eightBytes = Buffer.alloc(8);

function smallBase64(value: number): string {
  eightBytes.writeInt32BE(Math.floor(value / 2 ** 32), 0);
  eightBytes.writeInt32BE(value | 0, 4);
  const filler = value < 0 ? 0xff : 0;
  let from = 0;
  while (from < 7 && eightBytes[from] === filler && eightBytes[from + 1]! >> 7 === (filler & 1)) from++;
  return eightBytes.toString('base64', from);
}

/** $1,234.56 and -$0.01 under lc_monetary C. */
function moneyConverter(style: ValueStyle): Converter {
  const numeric = numericConverter(0, style);
  return (out, bytes, start, end) => {
    const amount = Buffer.from(bytes.toString('latin1', start, end).replaceAll(/[^-\d.]/g, ''), 'latin1');
    numeric(out, amount, 0, amount.length);
  };
}

function arrayConverter(element: Converter, delimiter: string): Converter {
  let out: JsonBuffer;
  const elements: ArrayElements = {
    begin: () => out.byte(0x5b),
    end: () => out.byte(0x5d),
    separator: () => out.byte(0x2c),
    element: (bytes, start, end) => element(out, bytes, start, end),
    nullElement: () => out.ascii('null'),
  };
  return (target, bytes, start, end) => {
    out = target;
    readArray(bytes, start, end, delimiter.charCodeAt(0), elements);
  };
}
