// Numbers of any precision: Postgres's binary numeric, and Kafka Connect's Decimal.

import type { CopyRows } from '../postgres/copy-rows.ts';
import { BadValue } from './bad-record.ts';

const decimal = /^\s*([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,5}))?\s*$/;
/** What numeric can hold (manual, "Numeric Types"). */
const maxWhole = 131_072;
const maxScale = 16_383;

const specials: Readonly<Record<string, number>> = {
  nan: 0xc000,
  infinity: 0xd000,
  inf: 0xd000,
  '-infinity': 0xf000,
  '-inf': 0xf000,
};

/** `text` as numeric_recv reads it: groups of four digits, the weight of the first, sign, digits after the point. */
export function writeNumeric(out: CopyRows, text: string): void {
  const found = decimal.exec(text);
  if (!found || (found[2] === '' && (found[3] ?? '') === '')) {
    const special = specials[text.trim().toLowerCase()];
    if (special === undefined) throw new BadValue('a number', text);
    out.length(8);
    out.uint32(0);
    out.uint16(special);
    out.uint16(0);
    return;
  }
  const [, sign, integer = '', fraction = '', exponent = '0'] = found;
  let whole = integer;
  let part = fraction;
  const shift = Number(exponent);
  if (shift > 0) {
    whole += part.slice(0, shift).padEnd(shift, '0');
    part = part.slice(shift);
  } else if (shift < 0) {
    const padded = whole.padStart(-shift, '0');
    part = padded.slice(padded.length + shift) + part;
    whole = padded.slice(0, padded.length + shift);
  }
  whole = whole.replace(/^0+/, '');
  if (whole.length > maxWhole || part.length > maxScale) throw new BadValue('a number that numeric can hold', text);
  const scale = part.length;
  const left = Math.ceil(whole.length / 4);
  const digits = whole.padStart(left * 4, '0') + part.padEnd(Math.ceil(scale / 4) * 4, '0');
  let first = 0;
  let end = digits.length / 4;
  const group = (index: number): number => Number(digits.slice(index * 4, index * 4 + 4));
  while (end > 0 && group(end - 1) === 0) end--;
  while (first < end && group(first) === 0) first++;
  const count = end - first;
  out.length(8 + count * 2);
  out.uint16(count);
  out.uint16(count === 0 ? 0 : (left - 1 - first) & 0xffff);
  out.uint16(sign === '-' && count > 0 ? 0x4000 : 0);
  out.uint16(scale);
  for (let i = first; i < end; i++) out.uint16(group(i));
}

/** Kafka Connect's Decimal: base64 of the digits without the point, big-endian two's complement. */
export function decimalOf(base64: string, scale: number): string {
  const bytes = Buffer.from(base64, 'base64');
  if (bytes.length === 0) throw new BadValue('a decimal in base64', base64);
  const unscaled = BigInt.asIntN(bytes.length * 8, BigInt(`0x${bytes.toString('hex')}`));
  if (scale <= 0) return `${unscaled}${'0'.repeat(unscaled === 0n ? 0 : -scale)}`;
  const digits = (unscaled < 0n ? -unscaled : unscaled).toString().padStart(scale + 1, '0');
  return `${unscaled < 0n ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}
