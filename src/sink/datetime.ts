// Dates and times from text to what Postgres keeps: microseconds and days since 2000-01-01. ISO 8601 as people and
// libraries write it, and as Postgres prints it: T or a space, a fraction, Z or an offset, years before Christ and beyond
// 9999, infinity. Without an offset it is UTC.
import { daysFromCivil, microsPerDay } from '../postgres/calendar.ts';
import { BadValue } from './bad-record.ts';

/** From 1970-01-01 to 2000-01-01. */
export const epochDays = 10_957;
export const epochMicros = epochDays * microsPerDay;

/** Infinity and its opposite, as int64 and as date's int32. */
export const endless = { micros: 2n ** 63n - 1n, days: 2 ** 31 - 1 } as const;

const monthDays = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const isLeap = (year: number): boolean => year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);

const digit = (bytes: Uint8Array, at: number): number => {
  const value = bytes[at]! - 0x30;
  return value >= 0 && value <= 9 ? value : Number.NaN;
};
const two = (bytes: Uint8Array, at: number): number => digit(bytes, at) * 10 + digit(bytes, at + 1);

export const longestIso = '2024-02-29T12:34:56.789012Z'.length;
const shortestIso = '2024-02-29T12:34:56Z'.length;

/** The form that nearly all records have, 2024-02-29T12:34:56.789Z; NaN for every other. Microseconds since 1970. */
export function isoMicros(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  if (length < shortestIso || length > longestIso) return Number.NaN;
  if (bytes[end - 1] !== 0x5a || bytes[start + 4] !== 0x2d || bytes[start + 7] !== 0x2d) return Number.NaN;
  if (bytes[start + 13] !== 0x3a || bytes[start + 16] !== 0x3a) return Number.NaN;
  if (bytes[start + 10] !== 0x54 && bytes[start + 10] !== 0x20) return Number.NaN;
  const year = two(bytes, start) * 100 + two(bytes, start + 2);
  const month = two(bytes, start + 5);
  const day = two(bytes, start + 8);
  const hour = two(bytes, start + 11);
  const minute = two(bytes, start + 14);
  const second = two(bytes, start + 17);
  let fraction = 0;
  if (length > shortestIso) {
    if (bytes[start + 19] !== 0x2e) return Number.NaN;
    let unit = 100_000;
    for (let at = start + 20; at < end - 1; at++) {
      fraction += digit(bytes, at) * unit;
      unit /= 10;
    }
  }
  if (!(month >= 1 && month <= 12 && day >= 1 && day <= 28 && hour < 24 && minute < 60 && second < 60))
    return Number.NaN;
  return daysFromCivil(year, month, day) * microsPerDay + ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction;
}

const scratch = new Uint8Array(longestIso);

function quickMicros(text: string): number {
  const { length } = text;
  if (length > longestIso) return Number.NaN;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return Number.NaN;
    scratch[i] = code;
  }
  return isoMicros(scratch, 0, length);
}

const iso =
  /^\s*([+-]?\d{4,6})-(\d\d)-(\d\d)(?:[T ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d{1,12}))?)?)?\s*(Z|z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?)?\s*( BC)?\s*$/;

/** Microseconds since 2000-01-01 UTC. `local`: the offset is left out of account, as `timestamp` has it. */
export function parseTimestamp(text: string, local: boolean): number | bigint {
  const quick = quickMicros(text);
  if (!Number.isNaN(quick)) return quick - epochMicros;
  const sign = infinity(text);
  if (sign !== 0) return sign > 0 ? endless.micros : -endless.micros - 1n;
  const { days, micros, zone } = readIso(text, 'a timestamp in ISO 8601');
  const clock = local ? micros : micros - zone * 1_000_000;
  const total = (days - epochDays) * microsPerDay + clock;
  if (Number.isSafeInteger(total)) return total;
  return BigInt(days - epochDays) * BigInt(microsPerDay) + BigInt(clock);
}

/** Days since 2000-01-01. */
export function parseDate(text: string): number {
  const sign = infinity(text);
  if (sign !== 0) return sign > 0 ? endless.days : -endless.days - 1;
  return readIso(text, 'a date in ISO 8601').days - epochDays;
}

const clock = /^\s*(\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,12}))?)?\s*Z?\s*$/;

/** Microseconds of the day. */
export function parseTime(text: string): number {
  const found = clock.exec(text);
  if (!found) throw new BadValue('a time of day', text);
  const [, hour, minute, second = '0', fraction = ''] = found;
  const micros = (Number(hour) * 3600 + Number(minute) * 60 + Number(second)) * 1_000_000 + microsOf(fraction);
  if (Number(minute) > 59 || Number(second) > 60 || micros > microsPerDay) throw new BadValue('a time of day', text);
  return micros;
}

function infinity(text: string): -1 | 0 | 1 {
  if (text === 'infinity' || text === '+infinity') return 1;
  return text === '-infinity' ? -1 : 0;
}

function readIso(text: string, expected: string): { days: number; micros: number; zone: number } {
  const found = iso.exec(text);
  if (!found) throw new BadValue(expected, text);
  const [, years, months, dates, hour = '0', minute = '0', second = '0', fraction = '', offset = 'Z', bc] = found;
  const year = bc === undefined ? Number(years) : 1 - Number(years);
  const month = Number(months);
  const day = Number(dates);
  const longest = month === 2 && isLeap(year) ? 29 : monthDays[month - 1];
  if (longest === undefined || day < 1 || day > longest) throw new BadValue(expected, text);
  const micros = (Number(hour) * 3600 + Number(minute) * 60 + Number(second)) * 1_000_000 + microsOf(fraction);
  if (Number(minute) > 59 || Number(second) > 60 || micros > microsPerDay) throw new BadValue(expected, text);
  return { days: daysFromCivil(year, month, day), micros, zone: zoneOf(offset) };
}

/** Rounded to microseconds, as Postgres does. */
const microsOf = (fraction: string): number => (fraction === '' ? 0 : Math.round(Number(`0.${fraction}`) * 1_000_000));

/** Seconds east of Greenwich. */
function zoneOf(offset: string): number {
  if (offset === 'Z' || offset === 'z') return 0;
  const digits = offset.slice(1).replaceAll(':', '').padEnd(6, '0');
  const seconds = Number(digits.slice(0, 2)) * 3600 + Number(digits.slice(2, 4)) * 60 + Number(digits.slice(4));
  return offset[0] === '-' ? -seconds : seconds;
}
