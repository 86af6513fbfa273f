// Values as the text that a type's input function reads, for types without a binary form of ours.
import { BadValue } from './bad-record.ts';
import { baseOf, type PgType } from './catalogue.ts';
import { type Hint, numericText } from './encoders.ts';
import { ExactNumber, stringifyJson } from './json.ts';

export function toText(value: unknown, type: PgType, modifier: number, hint: Hint): string {
  if (type.element) return arrayText(value, type, modifier, hint);
  switch (type.name) {
    case 'money':
      return moneyText(value, hint);
    case 'interval':
      // Debezium's MicroDuration.
      if (typeof value === 'number' || value instanceof ExactNumber) return `${value} microseconds`;
      break;
    case 'bit':
    case 'varbit':
      return bitText(value, modifier, hint);
    case 'point':
      if (typeof value === 'object' && value !== null && 'x' in value && 'y' in value) return `(${value.x},${value.y})`;
      break;
    case 'hstore':
      return hstoreText(value, hint);
  }
  if (typeof value === 'string') return value;
  return typeof value === 'object' ? stringifyJson(value) : String(value);
}

/** Connect's Decimal of two digits after the point; without a schema of Debezium's too. */
function moneyText(value: unknown, hint: Hint): string {
  const isDecimal = hint.schema === undefined && hint.style === 'debezium' && hint.as === undefined;
  // numeric(19, 2)
  return numericText(value, isDecimal ? ((19 << 16) | 2) + 4 : -1, hint);
}

/** Debezium packs bits into bytes, the last bit lowest in the first; how many there are its type knows. */
function bitText(value: unknown, modifier: number, { style, as, schema }: Hint): string {
  if (typeof value === 'boolean') return value ? '1' : '0';
  if (typeof value !== 'string') throw new BadValue('bits', value);
  const packed =
    as === 'base64' || (as === undefined && (schema?.type === 'bytes' || (style === 'debezium' && !schema)));
  if (!packed) return value;
  const bytes = Buffer.from(value, 'base64');
  const length = modifier >= 0 ? Math.min(modifier, bytes.length * 8) : bytes.length * 8;
  let bits = '';
  for (let i = length - 1; i >= 0; i--) bits += (bytes[i >> 3]! >> (i & 7)) & 1;
  return bits;
}

function hstoreText(value: unknown, { style }: Hint): string {
  let map = value;
  if (typeof value === 'string') {
    if (style !== 'debezium' || !value.startsWith('{')) return value;
    map = JSON.parse(value);
  }
  if (typeof map !== 'object' || map === null) throw new BadValue('an object', value);
  return Object.entries(map)
    .map(([key, inner]) => `${quoted(key)}=>${inner === null ? 'NULL' : quoted(String(inner))}`)
    .join(',');
}

function arrayText(value: unknown, type: PgType, modifier: number, hint: Hint): string {
  if (typeof value === 'string' && value.startsWith('{')) return value;
  if (!Array.isArray(value)) throw new BadValue('an array', value);
  const { type: element, modifier: elementModifier } = baseOf(type.element!, modifier);
  if (element.kind === 'c' && value.some(item => typeof item === 'object' && item !== null && !Array.isArray(item))) {
    return stringifyJson(value);
  }
  const inner = { ...hint, schema: hint.schema?.items };
  const literal = (items: readonly unknown[]): string => {
    const parts = items.map(item => {
      if (item === null || item === undefined) return 'NULL';
      if (Array.isArray(item)) return literal(item);
      return quoted(toText(item, element, elementModifier, inner));
    });
    return `{${parts.join(type.delimiter)}}`;
  };
  return literal(value);
}

const quoted = (text: string): string => `"${text.replaceAll(/["\\]/g, '\\$&')}"`;
