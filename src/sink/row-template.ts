// What most records of a topic are: the same bytes, but for the values between them. A template is learned of a record that
// the general way (change.ts, mapping.ts) has taken: the bytes before, between and after its values, Kafka Connect's schemas
// included, and for each value its column's scanner. A record that has these bytes is a row without being parsed; every other
// goes the general way, which knows what to say of it. Same bytes, same values, same row: so both ways come to the same.

import type { CopyRows } from '../postgres/copy-rows.ts';
import type { RecordPlaces } from '../protocol/record-places.ts';
import type { LogRecord } from '../protocol/records.ts';
import type { ChangeReader } from './change.ts';
import { findFields } from './fields.ts';
import { ignored, type Mapping } from './mapping.ts';
import { nullOr, type Scanner, scannerFor, skip, unlike } from './scanners.ts';

/** From a key or a value to columns. */
interface Part {
  readonly fields: readonly Field[];
  /** What follows the last value. */
  readonly rest: Buffer;
}

interface Field {
  /** What precedes the value. */
  readonly before: Buffer;
  readonly scan: Scanner;
  readonly nullable: boolean;
  readonly slot: number | undefined;
}

/** Up to this length a loop is quicker than the call into native code. */
const loopBytes = 40;

export class RowTemplate {
  /** The columns, in the order in which records have them. */
  readonly slots: readonly number[];
  /** Undefined where keys are not looked at. */
  readonly #key: Part | undefined;
  readonly #value: Part;

  private constructor(key: Part | undefined, value: Part) {
    this.#key = key;
    this.#value = value;
    this.slots = [...(key?.fields ?? []), ...value.fields].flatMap(({ slot }) => slot ?? []);
  }

  /** Of the record that `reader` has read and `mapping` has assigned. Undefined where there can be none. */
  static learn(mapping: Mapping, reader: ChangeReader, { key, value }: LogRecord): RowTemplate | undefined {
    if (!mapping.isByField || reader.operation !== 'write' || value === null) return undefined;
    const taken = new Set<number>();
    let ofKey: Part | undefined;
    if (reader.readsKey) {
      if (key === null) return undefined;
      ofKey = partOf('key', key, mapping, reader, taken);
      if (ofKey === undefined) return undefined;
    }
    const ofValue = partOf('value', value, mapping, reader, taken);
    if (ofValue === undefined) return undefined;
    const accounted = mapping.values.every((present, slot) => (present !== undefined) === taken.has(slot));
    return accounted ? new RowTemplate(ofKey, ofValue) : undefined;
  }

  /** Writes the record's columns. False where it is not like the template; then something may have been written. */
  write(places: RecordPlaces, i: number, out: CopyRows): boolean {
    const { section } = places;
    const key = this.#key;
    if (key !== undefined && !writePart(key, section, places.keyStart(i), places.keyEnd(i), out)) return false;
    return writePart(this.#value, section, places.valueStart(i), places.valueEnd(i), out);
  }
}

function writePart({ fields, rest }: Part, bytes: Buffer, start: number, end: number, out: CopyRows): boolean {
  if (start < 0) return false;
  let at = start;
  for (let i = 0; i < fields.length; i++) {
    const { before, scan, nullable } = fields[i]!;
    if (!isAt(before, bytes, at, end)) return false;
    at += before.length;
    at = nullable ? nullOr(scan, bytes, at, end, out) : scan(bytes, at, end, out);
    if (at === unlike) return false;
  }
  return at + rest.length === end && isAt(rest, bytes, at, end);
}

function isAt(expected: Buffer, bytes: Buffer, at: number, end: number): boolean {
  const { length } = expected;
  if (at + length > end) return false;
  if (length > loopBytes) return bytes.compare(expected, 0, length, at, at + length) === 0;
  for (let i = 0; i < length; i++) if (bytes[at + i] !== expected[i]) return false;
  return true;
}

/** `taken`: slots that have their values from elsewhere, the key's before the value's; those of this part are added. */
function partOf(
  part: 'key' | 'value',
  bytes: Buffer,
  mapping: Mapping,
  reader: ChangeReader,
  taken: Set<number>,
): Part | undefined {
  const start = reader.startOf(part);
  const schema = part === 'key' ? reader.keySchema : reader.valueSchema;
  const found = start === undefined ? undefined : findFields(bytes, start);
  if (found === undefined) return undefined;
  const fields: Field[] = [];
  let at = 0;
  for (const { name, from, to } of found) {
    const before = Buffer.from(bytes.subarray(at, from));
    at = to;
    const slot = mapping.slotOf(part, name, schema);
    if (slot === undefined) return undefined;
    if (slot === ignored || taken.has(slot)) {
      fields.push({ before, scan: skip, nullable: false, slot: undefined });
      continue;
    }
    const { column } = mapping.slots[slot]!;
    const ofField = name === undefined ? schema : schema?.fields?.find(({ field }) => field === name);
    const scan = scannerFor(column, ofField, mapping.exact);
    if (scan === undefined) return undefined;
    taken.add(slot);
    const nullable = name !== undefined && !column.notNull && !mapping.keySlots.includes(slot);
    fields.push({ before, scan, nullable, slot });
  }
  return { fields, rest: Buffer.from(bytes.subarray(at)) };
}
