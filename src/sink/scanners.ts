// From JSON as it lies in a record to a column's bytes in COPY, without a string or an object between, for what nearly all
// records have. Whatever else is there is left to the general way (change.ts, encoders.ts): a scanner writes what that
// would write, byte for byte, or says that it will not. scanners.test.ts holds one against the other.
import { isUtf8 } from 'node:buffer';
import type { CopyRows } from '../postgres/copy-rows.ts';
import { baseOf, type Column, type PgType } from './catalogue.ts';
import { epochMicros, isoMicros, longestIso } from './datetime.ts';
import { type Encoder, encoderFor, type Hint, microsOf, oid, stagingOf, typeEncoder, unitOf } from './encoders.ts';
import { readNumber } from './json.ts';
import type { ConnectSchema } from './schema.ts';

/**
 * Writes the JSON value that begins at `at`, length and all, and returns where it ends; or returns `unlike`. Nothing is read
 * from `end` on. Throws what the column's encoder throws.
 */
export type Scanner = (bytes: Buffer, at: number, end: number, out: CopyRows) => number;

/** The value is not of the kind that a scanner takes, or is no JSON. */
export const unlike = -1;

const quote = 0x22;
const backslash = 0x5c;
const space = 0x20;
const comma = 0x2c;
const minus = 0x2d;
const point = 0x2e;
const zero = 0x30;
const bracket = 0x5b;
const closingBracket = 0x5d;
const isDigit = (code: number): boolean => code >= zero && code <= 0x39;

/** Undefined where no value of the column is scanned. `exact`: numbers are read as they are written. */
export function scannerFor(column: Column, schema: ConnectSchema | undefined, exact: boolean): Scanner | undefined {
  const { type, modifier } = baseOf(column.type, column.modifier);
  if (isJson(type)) return undefined;
  if (!type.element) {
    return ofType(type, modifier, schema) ?? scalar(encoderFor(column, { style: 'plain', schema }), exact);
  }
  const element = baseOf(type.element, modifier);
  if (isJson(element.type) || !stagingOf(column).binary) return undefined;
  const hint: Hint = { style: 'plain', schema: schema?.items };
  const inner =
    ofType(element.type, element.modifier, hint.schema) ??
    scalar(typeEncoder(element.type, element.modifier, hint), exact);
  return array(type.element.oid, inner);
}

const isJson = (type: PgType): boolean => type.oid === oid.json || type.oid === oid.jsonb;

function ofType(type: PgType, modifier: number, schema: ConnectSchema | undefined): Scanner | undefined {
  switch (type.oid) {
    case oid.uuid:
      return uuid;
    case oid.int2:
      return int16;
    case oid.int4:
      return int32;
    case oid.int8:
      return int64;
    case oid.float8:
      return float8;
    case oid.text:
    case oid.varchar:
    case oid.bpchar:
    case oid.name:
      return text;
    case oid.timestamp:
    case oid.timestamptz:
      return timestamp(unitOf({ style: 'plain', schema }, modifier));
    default:
      return undefined;
  }
}

/** Where the string that begins at `at` has its closing quote: one without escapes, of valid UTF-8. */
function closingQuote(bytes: Buffer, at: number, end: number): number {
  let seen = 0;
  for (let i = at + 1; i < end; i++) {
    const code = bytes[i]!;
    if (code === quote) return seen < 0x80 || isUtf8(bytes.subarray(at + 1, i)) ? i : unlike;
    if (code === backslash || code < space) return unlike;
    seen |= code;
  }
  return unlike;
}

const text: Scanner = (bytes, at, end, out) => {
  if (bytes[at] !== quote) return unlike;
  out.reserve(4 + end - at);
  const target = out.bytes;
  const start = out.at + 4;
  let to = start;
  let seen = 0;
  for (let i = at + 1; i < end; i++) {
    const code = bytes[i]!;
    if (code === quote) {
      if (seen >= 0x80 && !isUtf8(bytes.subarray(at + 1, i))) return unlike;
      out.uint32(to - start);
      out.at = to;
      return i + 1;
    }
    if (code === backslash || code < space) return unlike;
    seen |= code;
    target[to++] = code;
  }
  return unlike;
};

const notHex = 0xff;
const hexDigits = new Uint8Array(256).fill(notHex);
for (let digit = 0; digit < 16; digit++) {
  hexDigits[digit.toString(16).charCodeAt(0)] = digit;
  hexDigits[digit.toString(16).toUpperCase().charCodeAt(0)] = digit;
}

/** With its four hyphens. */
const uuid: Scanner = (bytes, at, end, out) => {
  if (at + 38 > end || bytes[at] !== quote || bytes[at + 37] !== quote) return unlike;
  out.length(16);
  const target = out.bytes;
  let from = at + 1;
  let seen = 0;
  for (let i = 0; i < 16; i++) {
    if ((i === 4 || i === 6 || i === 8 || i === 10) && bytes[from++] !== minus) return unlike;
    const high = hexDigits[bytes[from]!]!;
    const low = hexDigits[bytes[from + 1]!]!;
    seen |= high | low;
    target[out.at + i] = (high << 4) | low;
    from += 2;
  }
  if (seen > 15) return unlike;
  out.at += 16;
  return at + 38;
};

/** More digits may be more than a double keeps. */
const safeDigits = 15;
/** What a double keeps of a power of ten, and what it keeps of a whole number. */
const powers = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent);
const maxSafe = Number.MAX_SAFE_INTEGER;

/** A number of JSON at a place. What was read last is in `value`. */
class NumberReader {
  value = 0;

  /** Returns where the whole number ends. */
  integer(bytes: Buffer, start: number, end: number): number {
    const negative = bytes[start] === minus;
    const first = negative ? start + 1 : start;
    let at = first;
    let value = 0;
    for (; at < end && isDigit(bytes[at]!); at++) value = value * 10 + (bytes[at]! - zero);
    const digits = at - first;
    // Zero before other digits is no JSON, and minus zero no whole number.
    if (digits === 0 || digits > safeDigits || (bytes[first] === zero && (digits > 1 || negative))) return unlike;
    // A fraction or an exponent may follow; then the value ends elsewhere.
    this.value = negative ? -value : value;
    return at;
  }

  /** Returns where the number ends. What two doubles, each exact, do not divide to is read as text. */
  double(bytes: Buffer, start: number, end: number): number {
    const negative = bytes[start] === minus;
    const first = negative ? start + 1 : start;
    let at = first;
    let digits = 0;
    for (; at < end && isDigit(bytes[at]!); at++) digits = digits * 10 + (bytes[at]! - zero);
    if (at === first || (bytes[first] === zero && at > first + 1)) return unlike;
    let scale = 0;
    if (at < end && bytes[at] === point) {
      const fraction = ++at;
      for (; at < end && isDigit(bytes[at]!); at++) digits = digits * 10 + (bytes[at]! - zero);
      scale = at - fraction;
      if (scale === 0) return unlike;
    }
    if (at < end && (bytes[at]! | space) === 0x65) {
      at++;
      if (at < end && (bytes[at] === minus || bytes[at] === 0x2b)) at++;
      const exponent = at;
      while (at < end && isDigit(bytes[at]!)) at++;
      if (at === exponent) return unlike;
      scale = powers.length;
    }
    if (digits <= maxSafe && scale < powers.length) {
      const value = digits / powers[scale]!;
      this.value = negative ? -value : value;
    } else {
      this.value = Number(bytes.toString('latin1', start, at));
    }
    return at;
  }
}
const number = new NumberReader();

const int16: Scanner = (bytes, at, end, out) => {
  const next = number.integer(bytes, at, end);
  if (next === unlike || number.value > 32_767 || number.value < -32_768) return unlike;
  out.length(2);
  out.uint16(number.value);
  return next;
};

const int32: Scanner = (bytes, at, end, out) => {
  const next = number.integer(bytes, at, end);
  if (next === unlike || number.value > 2_147_483_647 || number.value < -2_147_483_648) return unlike;
  out.length(4);
  out.uint32(number.value);
  return next;
};

const int64: Scanner = (bytes, at, end, out) => {
  const next = number.integer(bytes, at, end);
  if (next === unlike) return unlike;
  out.length(8);
  out.int64(number.value);
  return next;
};

const float8: Scanner = (bytes, at, end, out) => {
  const next = number.double(bytes, at, end);
  if (next === unlike) return unlike;
  out.length(8);
  out.double(number.value);
  return next;
};

/** A number of a unit since 1970, or text as most write it. */
function timestamp(unit: ReturnType<typeof unitOf>): Scanner {
  return (bytes, at, end, out) => {
    let next: number;
    let micros: number | bigint;
    if (bytes[at] === quote) {
      next = at + 1;
      while (next < end && next - at <= longestIso && bytes[next] !== quote) next++;
      micros = isoMicros(bytes, at + 1, next);
      if (next === end || Number.isNaN(micros)) return unlike;
      next++;
    } else {
      next = number.integer(bytes, at, end);
      if (next === unlike) return unlike;
      micros = microsOf(number.value, unit);
      if (typeof micros !== 'number') return unlike;
    }
    out.length(8);
    out.int64(micros - epochMicros);
    return next;
  };
}

/** One dimension, as JSON.stringify writes it, or with spaces. */
function array(elementOid: number, inner: Scanner): Scanner {
  return (bytes, start, end, out) => {
    if (bytes[start] !== bracket) return unlike;
    let at = pastSpaces(bytes, start + 1, end);
    const lengthAt = out.at;
    out.length(20);
    const isEmpty = bytes[at] === closingBracket;
    out.uint32(isEmpty ? 0 : 1);
    out.uint32(1);
    out.uint32(elementOid);
    let count = 0;
    if (!isEmpty) {
      out.at += 4;
      out.uint32(1);
      for (;;) {
        at = nullOr(inner, bytes, at, end, out);
        if (at === unlike) return unlike;
        count++;
        at = pastSpaces(bytes, at, end);
        if (bytes[at] === closingBracket) break;
        if (bytes[at] !== comma) return unlike;
        at = pastSpaces(bytes, at + 1, end);
      }
    }
    if (at >= end) return unlike;
    out.bytes.writeInt32BE(out.at - lengthAt - 4, lengthAt);
    if (!isEmpty) out.bytes.writeInt32BE(count, lengthAt + 16);
    return at + 1;
  };
}

function pastSpaces(bytes: Buffer, start: number, end: number): number {
  let at = start;
  while (at < end && bytes[at] === space) at++;
  return at;
}

/** What `inner` takes, or null. */
export function nullOr(inner: Scanner, bytes: Buffer, at: number, end: number, out: CopyRows): number {
  if (bytes[at] !== 0x6e) return inner(bytes, at, end, out);
  if (!isWord(bytes, at, end, 'null')) return unlike;
  out.null();
  return at + 4;
}

function isWord(bytes: Buffer, at: number, end: number, word: string): boolean {
  return at + word.length <= end && bytes.toString('latin1', at, at + word.length) === word;
}

/** Where the string, number or boolean ends that begins at `at`. A number is in `number` then. */
function scalarEnd(bytes: Buffer, at: number, end: number): number {
  switch (bytes[at]) {
    case quote: {
      const close = closingQuote(bytes, at, end);
      return close === unlike ? unlike : close + 1;
    }
    case 0x74:
      return isWord(bytes, at, end, 'true') ? at + 4 : unlike;
    case 0x66:
      return isWord(bytes, at, end, 'false') ? at + 5 : unlike;
    default:
      return number.double(bytes, at, end);
  }
}

/** A string, number or boolean, for the encoder that the general way has. */
function scalar(encode: Encoder, exact: boolean): Scanner {
  return (bytes, at, end, out) => {
    const next = scalarEnd(bytes, at, end);
    if (next === unlike) return unlike;
    const first = bytes[at]!;
    if (first === quote) encode(out, bytes.toString('utf8', at + 1, next - 1));
    else if (first === 0x74 || first === 0x66) encode(out, first === 0x74);
    else encode(out, exact ? readNumber(bytes.toString('latin1', at, next)) : number.value);
    return next;
  };
}

/** A string, number, boolean or null that no column takes. */
export const skip: Scanner = (bytes, at, end, out) => {
  const before = out.at;
  const next = nullOr(scalarEnd, bytes, at, end, out);
  out.at = before;
  return next;
};
