// From a record's value to its column: for each type its binary form where Postgres has one that is worth writing here,
// and text for all others, which the statement then casts. What a value means is told by its schema where it has one, by
// Debezium's conventions for the column's type where it is Debezium's without one, else by what people write.

import type { CopyRows } from '../postgres/copy-rows.ts';
import { BadValue } from './bad-record.ts';
import { baseOf, type Column, type PgType } from './catalogue.ts';
import { endless, epochDays, epochMicros, parseDate, parseTime, parseTimestamp } from './datetime.ts';
import type { As } from './definition.ts';
import { ExactNumber, stringifyJson } from './json.ts';
import { decimalOf, writeNumeric } from './numeric.ts';
import type { ConnectSchema } from './schema.ts';
import { toText } from './text-values.ts';

/** Writes a value that is not null, length and all. Throws BadValue. */
export type Encoder = (out: CopyRows, value: unknown) => void;

/** How a value says what it means. */
export interface Hint {
  readonly style: 'plain' | 'debezium';
  readonly schema?: ConnectSchema | undefined;
  readonly as?: As | undefined;
}

/** How a column's values are staged: in their own type, or as text that `cast` makes one of. */
export interface Staging {
  readonly sql: string;
  readonly binary: boolean;
  cast(staged: string): string;
}

export const oid = {
  bool: 16,
  bytea: 17,
  name: 19,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  json: 114,
  float4: 700,
  float8: 701,
  bpchar: 1042,
  varchar: 1043,
  date: 1082,
  time: 1083,
  timestamp: 1114,
  timestamptz: 1184,
  numeric: 1700,
  uuid: 2950,
  jsonb: 3802,
} as const;

export function stagingOf(column: Column): Staging {
  const { type } = baseOf(column.type, column.modifier);
  const binary = hasBinary(type);
  if (binary) return { sql: type.sql, binary, cast: staged => staged };
  return { sql: 'text', binary, cast: staged => castText(type, staged) };
}

function castText(type: PgType, staged: string): string {
  const plain = `${staged}::${type.sql}`;
  if (type.kind === 'c') {
    const fromJson = `jsonb_populate_record(NULL::${type.sql}, ${staged}::jsonb)`;
    return `CASE WHEN left(${staged}, 1) = '{' THEN ${fromJson} ELSE ${plain} END`;
  }
  if (type.element?.kind === 'c') {
    const { sql } = type.element;
    const fromJson = `ARRAY(SELECT r FROM jsonb_populate_recordset(NULL::${sql}, ${staged}::jsonb) r)`;
    return `CASE WHEN left(${staged}, 2) = '[{' THEN ${fromJson} ELSE ${plain} END`;
  }
  return plain;
}

/** Whether numbers must come as they are written: doubles do not hold all that the type does. */
export function needsExact(column: Column): boolean {
  const { type } = baseOf(column.type, column.modifier);
  const scalar = type.element ? baseOf(type.element, -1).type : type;
  return !inexactTypes.has(scalar.oid);
}
const inexactTypes: ReadonlySet<number> = new Set([
  oid.bool,
  oid.bytea,
  oid.int2,
  oid.int4,
  oid.float4,
  oid.float8,
  oid.date,
  oid.time,
  oid.uuid,
  oid.timestamptz,
  oid.text,
  oid.varchar,
  oid.bpchar,
]);

function hasBinary(type: PgType): boolean {
  if (type.element) {
    const element = baseOf(type.element, -1).type;
    return element.element === undefined && hasBinary(element);
  }
  return type.kind === 'e' || type.name === 'citext' || builtIn(type.oid, -1, { style: 'plain' }) !== undefined;
}

export function encoderFor(column: Column, hint: Hint): Encoder {
  const { type, modifier } = baseOf(column.type, column.modifier);
  if (!hasBinary(type)) return (out, value) => out.text(toText(value, type, modifier, hint));
  return typeEncoder(type, modifier, hint);
}

/** Of a type that has a binary form here. */
export function typeEncoder(type: PgType, modifier: number, hint: Hint): Encoder {
  if (type.element) {
    const { element } = type;
    const base = baseOf(element, modifier);
    const inner = typeEncoder(base.type, base.modifier, { ...hint, schema: hint.schema?.items });
    return arrayEncoder(element.oid, inner, base.type.oid !== oid.json && base.type.oid !== oid.jsonb);
  }
  if (type.kind === 'e') return label;
  return builtIn(type.oid, modifier, hint) ?? text;
}

function builtIn(typeOid: number, modifier: number, hint: Hint): Encoder | undefined {
  switch (typeOid) {
    case oid.bool:
      return boolean;
    case oid.int2:
      return int16;
    case oid.int4:
      return int32;
    case oid.int8:
      return int64;
    case oid.float4:
      return float4;
    case oid.float8:
      return float8;
    case oid.numeric:
      return numericEncoder(modifier, hint);
    case oid.text:
    case oid.varchar:
    case oid.bpchar:
    case oid.name:
      return hint.as === 'json' ? (out, value) => out.text(stringifyJson(value)) : text;
    case oid.uuid:
      return uuid;
    case oid.bytea:
      return bytesEncoder(hint);
    case oid.json:
    case oid.jsonb:
      return jsonEncoder(typeOid === oid.jsonb ? 1 : -1, hint);
    case oid.date:
      return dateEncoder(hint);
    case oid.time:
      return timeEncoder(modifier, hint);
    case oid.timestamp:
    case oid.timestamptz:
      return timestampEncoder(typeOid === oid.timestamp, modifier, hint);
    default:
      return undefined;
  }
}

const boolean: Encoder = (out, value) => {
  let is: boolean;
  if (value === true || value === 1 || value === 'true' || value === 't' || value === '1') is = true;
  else if (value === false || value === 0 || value === 'false' || value === 'f' || value === '0') is = false;
  else throw new BadValue('true or false', value);
  out.length(1);
  out.byte(is ? 1 : 0);
};

function integer(value: unknown, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value <= max && value >= -max - 1) return value;
  if (typeof value === 'string' && /^\s*[+-]?\d+\s*$/.test(value)) {
    const read = Number(value);
    if (read <= max && read >= -max - 1) return read;
  }
  if (typeof value === 'boolean') return value ? 1 : 0;
  throw new BadValue(`a whole number from ${-max - 1} to ${max}`, value);
}

const int16: Encoder = (out, value) => {
  const number = integer(value, 32_767);
  out.length(2);
  out.uint16(number);
};

const int32: Encoder = (out, value) => {
  const number = integer(value, 2_147_483_647);
  out.length(4);
  out.uint32(number);
};

const int64: Encoder = (out, value) => {
  if (typeof value === 'number' && Number.isSafeInteger(value)) {
    out.length(8);
    out.int64(value);
    return;
  }
  if (typeof value === 'boolean') return int64(out, value ? 1 : 0);
  const written = String(value);
  const whole = /^\s*[+-]?\d+\s*$/.test(written) ? BigInt(written.trim().replace(/^\+/, '')) : undefined;
  if (whole === undefined || BigInt.asIntN(64, whole) !== whole) throw new BadValue('a whole number of 64 bits', value);
  out.length(8);
  out.bigint64(whole);
};

const nonFinite: Readonly<Record<string, number>> = {
  nan: Number.NaN,
  infinity: Number.POSITIVE_INFINITY,
  '-infinity': Number.NEGATIVE_INFINITY,
};

function floating(value: unknown): number {
  if (typeof value === 'number') return value;
  if (typeof value === 'string' || value instanceof ExactNumber) {
    const written = String(value);
    const read = nonFinite[written.toLowerCase()] ?? (written.trim() === '' ? undefined : Number(written));
    if (read !== undefined && (!Number.isNaN(read) || /^nan$/i.test(written))) return read;
  }
  throw new BadValue('a number', value);
}

const float8: Encoder = (out, value) => {
  const number = floating(value);
  out.length(8);
  out.double(number);
};

const float4: Encoder = (out, value) => {
  const number = floating(value);
  const single = Math.fround(number);
  if (Number.isFinite(number) && !Number.isFinite(single)) throw new BadValue('a number that real can hold', value);
  out.length(4);
  out.bytes.writeFloatBE(single, out.at);
  out.at += 4;
};

/** A number may have had more digits than were read: the record is to be read again, exactly. */
export class Inexact extends Error {
  override name = 'Inexact';
}

const text: Encoder = (out, value) => {
  if (typeof value === 'string') out.text(value);
  else if (typeof value === 'number' && !out.exact && !Number.isSafeInteger(value)) throw new Inexact();
  else out.text(typeof value === 'object' ? stringifyJson(value) : String(value));
};

const label: Encoder = (out, value) => {
  if (typeof value !== 'string') throw new BadValue('a label of the enum', value);
  out.text(value);
};

function hexOf(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const letter = (code | 0x20) - 0x61;
  return letter >= 0 && letter < 6 ? letter + 10 : Number.NaN;
}

const uuid: Encoder = (out, value) => {
  if (typeof value === 'string') {
    out.length(16);
    const { bytes } = out;
    let at = 0;
    let filled = 0;
    const { length } = value;
    for (; at < length && filled < 16; filled++) {
      if (value.charCodeAt(at) === 0x2d) at++;
      const byte = hexOf(value.charCodeAt(at)) * 16 + hexOf(value.charCodeAt(at + 1));
      if (Number.isNaN(byte)) break;
      bytes[out.at + filled] = byte;
      at += 2;
    }
    if (filled === 16 && at === length) {
      out.at += 16;
      return;
    }
    out.at -= 4;
  }
  throw new BadValue('a UUID', value);
};

function bytesEncoder({ as }: Hint): Encoder {
  return (out, value) => {
    if (Buffer.isBuffer(value)) return out.blob(value);
    if (typeof value !== 'string') throw new BadValue('bytes as text', value);
    if (as === 'utf8') return out.text(value);
    const hex = as === 'hex' || value.startsWith('\\x');
    const digits = value.startsWith('\\x') ? value.slice(2) : value;
    const bytes = Buffer.from(digits, hex ? 'hex' : 'base64');
    // What Buffer does not understand it leaves out.
    const whole = hex ? bytes.length * 2 === digits.length : /^[A-Za-z0-9+/_-]*={0,2}$/.test(digits);
    if (!whole) throw new BadValue(hex ? 'bytes in hex' : 'bytes in base64', value);
    out.blob(bytes);
  };
}

/** Logical types whose string is JSON already; without a schema Debezium's are so too. */
function jsonEncoder(prefix: number, { style, schema, as }: Hint): Encoder {
  const isText =
    as === 'text' || (as === undefined && (schema?.type === 'string' || (style === 'debezium' && !schema)));
  return (out, value) => {
    out.text(isText && typeof value === 'string' ? value : stringifyJson(value), prefix);
  };
}

function numericEncoder(modifier: number, hint: Hint): Encoder {
  return (out, value) => writeNumeric(out, numericText(value, modifier, hint));
}

/** The scale of numeric(p, s), which may be negative from PostgreSQL 15 on. */
export const scaleOf = (modifier: number): number => (((modifier - 4) & 0x7ff) ^ 1024) - 1024;

export function numericText(value: unknown, modifier: number, { style, schema, as }: Hint): string {
  if (typeof value === 'number' || value instanceof ExactNumber) return String(value);
  if (typeof value === 'string') {
    if (as === 'text' || /^(nan|[+-]?infinity)$/i.test(value)) return value;
    if (schema?.name === 'org.apache.kafka.connect.data.Decimal') {
      return decimalOf(value, Number(schema.parameters?.scale ?? 0));
    }
    if (schema === undefined && style === 'debezium' && modifier >= 0) return decimalOf(value, scaleOf(modifier));
    return value;
  }
  if (typeof value === 'object' && value !== null && 'scale' in value && 'value' in value) {
    return decimalOf(String(value.value), Number(value.scale));
  }
  throw new BadValue('a number', value);
}

/** Units in a second. */
type Unit = 1 | 1000 | 1_000_000 | 1_000_000_000;

export function unitOf({ style, schema, as }: Hint, modifier: number): Unit {
  if (as === 'epoch_s') return 1;
  if (as === 'epoch_ms') return 1000;
  if (as === 'epoch_us') return 1_000_000;
  if (as === 'epoch_ns') return 1_000_000_000;
  const name = schema?.name ?? '';
  if (name.endsWith('.MicroTimestamp') || name.endsWith('.MicroTime')) return 1_000_000;
  if (name.endsWith('.NanoTimestamp') || name.endsWith('.NanoTime')) return 1_000_000_000;
  if (schema === undefined && style === 'debezium') return modifier >= 0 && modifier <= 3 ? 1000 : 1_000_000;
  return 1000;
}

/** A number as microseconds, rounded down. */
export function microsOf(value: number | ExactNumber, unit: Unit): number | bigint {
  const number = Number(value);
  if (unit <= 1000 || Number.isSafeInteger(number)) {
    const micros = unit === 1_000_000_000 ? Math.floor(number / 1000) : Math.round(number * (1_000_000 / unit));
    if (Number.isSafeInteger(micros)) return micros;
  }
  if (!/^-?\d+$/.test(String(value))) throw new BadValue('an instant as a number', value);
  const whole = BigInt(String(value));
  return unit === 1_000_000_000 ? whole / 1000n : whole * BigInt(1_000_000 / unit);
}

/** Debezium's numbers for dates and times without end. */
const endlessSigns: Readonly<Record<string, 1 | -1>> = {
  '9223372036825200000': 1,
  '-9223372036832400000': -1,
  '9223372036825200': 1,
  '-9223372036832400': -1,
};
const endlessDays = { first: -2_147_472_692, last: -2_147_472_691 } as const;

function timestampEncoder(local: boolean, modifier: number, hint: Hint): Encoder {
  const unit = unitOf(hint, modifier);
  const debezium = hint.style === 'debezium';
  return (out, value) => {
    let micros: number | bigint;
    if (typeof value === 'string') {
      micros = parseTimestamp(value, local);
    } else if (typeof value === 'number' || value instanceof ExactNumber) {
      const sign = debezium ? endlessSigns[String(value)] : undefined;
      if (sign !== undefined) {
        micros = sign > 0 ? endless.micros : -endless.micros - 1n;
      } else {
        const since1970 = microsOf(value, unit);
        micros = typeof since1970 === 'number' ? since1970 - epochMicros : since1970 - BigInt(epochMicros);
      }
    } else {
      throw new BadValue('a timestamp', value);
    }
    out.length(8);
    if (typeof micros === 'number') out.int64(micros);
    else out.bigint64(BigInt.asIntN(64, micros));
  };
}

function dateEncoder(hint: Hint): Encoder {
  const { as } = hint;
  return (out, value) => {
    let days: number;
    if (typeof value === 'string') {
      days = parseDate(value);
    } else if (typeof value === 'number' && Number.isInteger(value)) {
      if (as !== undefined) days = Math.floor(Number(microsOf(value, unitOf(hint, -1))) / 86_400_000_000) - epochDays;
      else if (hint.style === 'debezium' && value === endlessDays.first) days = endless.days;
      else if (hint.style === 'debezium' && value === endlessDays.last) days = -endless.days - 1;
      else days = value - epochDays;
    } else {
      throw new BadValue('a date', value);
    }
    if (days < -endless.days - 1 || days > endless.days) throw new BadValue('a date', value);
    out.length(4);
    out.uint32(days);
  };
}

function timeEncoder(modifier: number, hint: Hint): Encoder {
  const unit = unitOf(hint, modifier);
  return (out, value) => {
    let micros: number;
    if (typeof value === 'string') micros = parseTime(value);
    else if (typeof value === 'number') micros = Number(microsOf(value, unit));
    else throw new BadValue('a time of day', value);
    if (micros < 0 || micros > 86_400_000_000) throw new BadValue('a time of day', value);
    out.length(8);
    out.int64(micros);
  };
}

/** The sizes of a (perhaps nested) array. Throws BadValue where its rows differ. */
function sizesOf(array: readonly unknown[], nested: boolean): number[] {
  const sizes = [array.length];
  if (!nested || !Array.isArray(array[0])) return sizes;
  const inner = sizesOf(array[0], true);
  for (const row of array) {
    if (!Array.isArray(row) || String(sizesOf(row, true)) !== String(inner))
      throw new BadValue('an array whose rows have the same size', array);
  }
  return [...sizes, ...inner];
}

/** array_recv: dimensions, whether there are nulls, the elements' type, sizes with lower bounds, elements in order. */
function arrayEncoder(elementOid: number, encode: Encoder, nested: boolean): Encoder {
  return (out, value) => {
    if (!Array.isArray(value)) throw new BadValue('an array', value);
    const sizes = value.length === 0 ? [] : sizesOf(value, nested);
    out.reserve(4 + 12 + 8 * sizes.length);
    const lengthAt = out.at;
    out.at += 4;
    out.uint32(sizes.length);
    out.uint32(1);
    out.uint32(elementOid);
    for (const size of sizes) {
      out.uint32(size);
      out.uint32(1);
    }
    writeElements(out, value, sizes.length, encode);
    out.bytes.writeInt32BE(out.at - lengthAt - 4, lengthAt);
  };
}

function writeElements(out: CopyRows, elements: readonly unknown[], depth: number, encode: Encoder): void {
  for (const element of elements) {
    if (depth > 1) writeElements(out, element as unknown[], depth - 1, encode);
    else if (element === null || element === undefined) out.null();
    else encode(out, element);
  }
}
