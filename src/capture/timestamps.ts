// Dates and times as Postgres prints them with DateStyle ISO and TimeZone UTC, read from bytes: 2024-02-29,
// 12:34:56.789012, 2024-02-29 12:34:56.789012+00, 0044-03-15 BC, 12024-01-01, infinity.
import { daysFromCivil } from '../postgres/calendar.ts';

/** What the last `parse…` has read. Fields of a module rather than a result: no object per value. */
export const parsed = {
  /** Since 1970-01-01. */
  days: 0,
  /** Of the day; a day's end may be 24:00:00. */
  micros: 0,
  year: 0,
  month: 0,
  day: 0,
  /** Where reading ended. */
  at: 0,
};

/** `infinity` and `-infinity` are the only values that begin so. */
export function infinitySign(bytes: Buffer, start: number): -1 | 0 | 1 {
  if (bytes[start] === 0x69) return 1;
  return bytes[start] === 0x2d ? -1 : 0;
}

export function parseDate(bytes: Buffer, start: number, end: number): void {
  let at = start;
  let year = 0;
  while (bytes[at] !== 0x2d) year = year * 10 + bytes[at++]! - 0x30;
  const month = twoDigits(bytes, at + 1);
  const day = twoDigits(bytes, at + 4);
  at += 6;
  if (bytes[end - 1] === 0x43) year = 1 - year; // ends in " BC"
  parsed.year = year;
  parsed.month = month;
  parsed.day = day;
  parsed.days = daysFromCivil(year, month, day);
  parsed.at = at;
}

export function parseTime(bytes: Buffer, start: number, end: number): void {
  let at = start;
  let micros = (twoDigits(bytes, at) * 3600 + twoDigits(bytes, at + 3) * 60 + twoDigits(bytes, at + 6)) * 1_000_000;
  at += 8;
  if (at < end && bytes[at] === 0x2e) {
    at++;
    let unit = 100_000;
    for (let digit = bytes[at]!; at < end && digit >= 0x30 && digit <= 0x39; digit = bytes[++at]!) {
      micros += (digit - 0x30) * unit;
      unit /= 10;
    }
  }
  parsed.micros = micros;
  parsed.at = at;
}

export function parseTimestamp(bytes: Buffer, start: number, end: number): void {
  parseDate(bytes, start, end);
  parseTime(bytes, parsed.at + 1, end);
}

/** Minutes may be missing: +02, -03:30, +05:53:28. In seconds east of Greenwich. */
export function parseZone(bytes: Buffer, start: number, end: number): number {
  const sign = bytes[start] === 0x2d ? -1 : 1;
  let seconds = 0;
  let unit = 3600;
  for (let at = start + 1; at + 1 < end; at += 3) {
    seconds += twoDigits(bytes, at) * unit;
    unit /= 60;
  }
  return sign * seconds;
}

function twoDigits(bytes: Buffer, at: number): number {
  return (bytes[at]! - 0x30) * 10 + bytes[at + 1]! - 0x30;
}
