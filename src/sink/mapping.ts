// From a change to the columns of its table: where each column's value comes from and how it is written, decided once for
// a table and a schema, looked up for each record.
import type { LogRecord } from '../protocol/records.ts';
import { BadRecord } from './bad-record.ts';
import type { Column, TargetTable } from './catalogue.ts';
import { type ChangeReader, isObject } from './change.ts';
import type { As, SinkDefinition } from './definition.ts';
import { type Encoder, encoderFor, type Hint, needsExact, type Staging, stagingOf } from './encoders.ts';
import { NewKeys } from './new-keys.ts';
import { type ConnectSchema, sqlTypeOf, sqlTypeOfValue } from './schema.ts';

/** A column that can be written. */
export interface Slot {
  readonly index: number;
  readonly column: Column;
  readonly staging: Staging;
}

/** A field that has no column. */
export class UnknownField extends BadRecord {
  override name = 'UnknownField';
  readonly field: string;
  /** The type that a column for it would have; undefined where the record does not tell. */
  readonly sqlType: string | undefined;

  constructor(table: TargetTable, field: string, sqlType: string | undefined) {
    super(
      `${table.sql} has no column for the field ${JSON.stringify(field)}: exclude it, or set unknownFields: ignore`,
      field,
    );
    this.field = field;
    this.sqlType = sqlType;
  }
}

/** The table cannot be written to as the definition has it: nothing that a record could mend. */
export class MappingError extends Error {
  override name = 'MappingError';
}

interface FieldPlan {
  readonly field: string;
  readonly slot: number;
  readonly encode: Encoder;
}

interface Explicit {
  readonly slot: number;
  readonly part: string;
  readonly path: readonly string[];
  readonly as: As | undefined;
}

/** A field that no column takes. */
export const ignored = -1;
const unavailable = '__debezium_unavailable_value';
const unavailableBytes = Buffer.from(unavailable).toString('base64');
const defaultCoordinates = ['kafka_topic', 'kafka_partition', 'kafka_offset'];
const noSchema = {};
const label: Encoder = (out, value) => out.text(String(value));

export class Mapping {
  readonly definition: SinkDefinition;
  readonly table: TargetTable;
  readonly topic: string;
  readonly slots: readonly Slot[];
  /** Those of the key, in its order; empty where rows have none. */
  readonly keySlots: readonly number[];
  /** Whether some column holds more than a double does. */
  readonly exact: boolean;
  /** By slot, of the record that was read last; undefined is absent. */
  readonly values: unknown[];
  readonly encoders: Encoder[];
  /** The columns that rows had last. */
  lastSlots: readonly number[] = [];
  readonly newKeys = new NewKeys();
  readonly #byName: ReadonlyMap<string, Slot>;
  readonly #fieldSlots = { key: new Map<string, number>(), value: new Map<string, number>() };
  readonly #plain: Encoder[];
  /** By slot and schema: a slot is always read the same way (`as`). */
  readonly #compiled: WeakMap<object, Encoder>[];
  readonly #plans = {
    key: new WeakMap<ConnectSchema, FieldPlan[]>(),
    value: new WeakMap<ConnectSchema, FieldPlan[]>(),
  };
  readonly #explicit: readonly Explicit[];
  readonly #style: Hint['style'];
  readonly #nulls: readonly number[];

  /** Throws MappingError. */
  constructor(definition: SinkDefinition, table: TargetTable, topic: string) {
    this.definition = definition;
    this.table = table;
    this.topic = topic;
    this.#style = definition.format === 'debezium' ? 'debezium' : 'plain';
    this.slots = table.columns
      .filter(column => !column.generated)
      .map((column, index) => ({ index, column, staging: stagingOf(column) }));
    this.#byName = new Map(this.slots.map(slot => [slot.column.name, slot]));
    this.#plain = this.slots.map(({ column }) => encoderFor(column, { style: this.#style }));
    this.#compiled = this.slots.map(() => new WeakMap());
    this.values = new Array(this.slots.length).fill(undefined);
    this.encoders = new Array(this.slots.length).fill(label);
    this.exact = this.slots.some(({ column }) => needsExact(column));
    this.#explicit = Object.entries(definition.columns).map(([name, { from, as }]) => {
      const slot = this.#byName.get(name);
      if (slot === undefined)
        throw new MappingError(`${table.sql} has no column ${name}, which the sink's columns name`);
      const [part = '', ...path] = from.split('.');
      return { slot: slot.index, part, path: part.startsWith('header') ? [path.join('.')] : path, as };
    });
    this.keySlots = this.#findKey().map(name => {
      const slot = this.#byName.get(name);
      if (slot === undefined) throw new MappingError(`${table.sql} has no column ${name}, which its key needs`);
      return slot.index;
    });
    this.#nulls =
      definition.absent === 'null'
        ? this.slots.filter(({ column }) => !column.hasDefault).map(({ index }) => index)
        : [];
    this.#checkKey();
  }

  get keyColumns(): string[] {
    return this.keySlots.map(slot => this.slots[slot]!.column.name);
  }

  #findKey(): readonly string[] {
    const { key, keyFields, mode } = this.definition;
    if (key === 'coordinates') return keyFields ?? defaultCoordinates;
    if (key === 'headers' && keyFields === undefined)
      throw new MappingError('key headers needs keyFields: the headers’ names');
    if (mode === 'insert' && key !== 'headers') return [];
    if (keyFields !== undefined) return keyFields.map(field => this.#columnOfKeyField(field));
    const { primaryKey, sql } = this.table;
    if (primaryKey === undefined) {
      throw new MappingError(
        `${sql} has no primary key: name the key's fields with keyFields, and give it a unique index`,
      );
    }
    return primaryKey;
  }

  #columnOfKeyField(field: string): string {
    const part = this.definition.key === 'record' ? 'key' : 'value';
    const renamed = Object.entries(this.definition.columns).find(([, { from }]) => from === `${part}.${field}`);
    return renamed?.[0] ?? field;
  }

  /** ON CONFLICT needs an index; without one duplicates would be written. */
  #checkKey(): void {
    if (this.definition.mode !== 'upsert') return;
    const key = this.keyColumns;
    const fits = this.table.uniqueKeys.some(
      unique => unique.length === key.length && unique.every(name => key.includes(name)),
    );
    if (fits) return;
    const columns = key.map(name => JSON.stringify(name)).join(', ');
    throw new MappingError(
      `${this.table.sql} has no unique index on (${columns}): CREATE UNIQUE INDEX ON ${this.table.sql} (${columns})`,
    );
  }

  /** Fills `values` and `encoders` from what `reader` has read. Throws BadRecord. */
  assign(reader: ChangeReader, record: LogRecord, partition: number): void {
    const { values, definition } = this;
    values.fill(undefined);
    if (this.#nulls.length > 0 && reader.operation === 'write') {
      for (const slot of this.#nulls) this.#set(slot, null, label);
    }
    if (reader.operation === 'write') {
      this.#assignPart('value', reader.value, reader.valueSchema);
      if (reader.unchanged) for (const name of reader.unchanged) this.#drop(name);
    } else if (definition.key === 'value' && isObject(reader.value)) {
      this.#assignPart('value', reader.value, reader.valueSchema);
    }
    this.#assignKey(reader, record, partition);
    if (this.#explicit.length > 0) this.#assignExplicit(reader, record, partition);
    for (const slot of this.keySlots) {
      if (values[slot] !== undefined && values[slot] !== null) continue;
      const { name } = this.slots[slot]!.column;
      throw new BadRecord(`the key's column ${name} has no value`, name);
    }
  }

  #set(slot: number, value: unknown, encoder: Encoder): void {
    this.values[slot] = value;
    this.encoders[slot] = encoder;
  }

  #drop(name: string): void {
    const slot = this.#byName.get(name);
    if (slot) this.values[slot.index] = undefined;
  }

  #assignKey(reader: ChangeReader, record: LogRecord, partition: number): void {
    const { key: from, keyFields, mode } = this.definition;
    if (from === 'record') {
      const { key } = reader;
      if (key === null || key === undefined) {
        if (mode !== 'insert') throw new BadRecord('the record has no key');
        return;
      }
      if (isObject(key)) {
        this.#assignPart('key', key, reader.keySchema);
        return;
      }
      const slot = this.#wholeKeySlot();
      if (slot !== undefined) {
        this.#set(slot, key, this.#encoderOf(slot, reader.keySchema));
      } else if (mode !== 'insert' || keyFields !== undefined) {
        throw new BadRecord(
          `the record's key is a single value, and the table's key has ${this.keySlots.length} columns`,
        );
      }
    } else if (from === 'headers') {
      for (let i = 0; i < this.keySlots.length; i++) {
        const slot = this.keySlots[i]!;
        this.#set(slot, headerOf(record, keyFields![i]!), this.#plain[slot]!);
      }
    } else if (from === 'coordinates') {
      const coordinates = [this.topic, partition, String(record.offset)];
      for (let i = 0; i < 3; i++) {
        const slot = this.keySlots[i];
        if (slot !== undefined) this.#set(slot, coordinates[i], this.#plain[slot]!);
      }
    }
  }

  /** Where a key goes that has no fields. */
  #wholeKeySlot(): number | undefined {
    if (this.keySlots.length === 1) return this.keySlots[0]!;
    return this.#byName.get(this.definition.keyFields?.[0] ?? '')?.index;
  }

  /** Whether rows are the fields of keys and values, each as it is, and nothing else. */
  get isByField(): boolean {
    const { format, key, keyFormat } = this.definition;
    if (this.#explicit.length > 0 || this.#nulls.length > 0 || format !== 'json') return false;
    return key === 'record' ? keyFormat === 'json' : key === 'value' || key === 'none';
  }

  /**
   * Where a field goes, `ignored` where nowhere, and the key itself where it has no fields. Undefined where no record has
   * told yet. Of mappings that are by field.
   */
  slotOf(part: 'key' | 'value', field: string | undefined, schema: ConnectSchema | undefined): number | undefined {
    if (field === undefined) return part === 'key' ? this.#wholeKeySlot() : undefined;
    if (!schema?.fields) return this.#fieldSlots[part].get(field);
    return this.#planOf(part, schema).find(plan => plan.field === field)?.slot ?? ignored;
  }

  #assignPart(part: 'key' | 'value', fields: unknown, schema: ConnectSchema | undefined): void {
    if (!isObject(fields)) {
      // As it is, where a column takes it.
      if (this.#explicit.some(explicit => explicit.part === part)) return;
      const slot = this.#byName.get(part);
      if (slot === undefined) {
        throw new BadRecord(`the ${part} has no fields, and no column takes it whole: set columns: {COLUMN: ${part}}`);
      }
      this.#set(slot.index, fields, this.#encoderOf(slot.index, schema));
      return;
    }
    if (schema?.fields) {
      for (const { field, slot, encode } of this.#planOf(part, schema)) {
        const value = fields[field];
        if (value === undefined || (this.#style === 'debezium' && isUnavailable(value))) continue;
        this.values[slot] = value;
        this.encoders[slot] = encode;
      }
      return;
    }
    const slots = this.#fieldSlots[part];
    for (const field in fields) {
      const value = fields[field];
      let slot = slots.get(field);
      if (slot === undefined) {
        // A column is made for it when a value tells its type.
        if (value === null && this.definition.evolve && !this.#byName.has(field)) continue;
        slot = this.#slotOfField(part, field, () => sqlTypeOfValue(value));
        slots.set(field, slot);
      }
      if (slot === ignored || (this.#style === 'debezium' && isUnavailable(value))) continue;
      this.values[slot] = value;
      this.encoders[slot] = this.#plain[slot]!;
    }
  }

  #planOf(part: 'key' | 'value', schema: ConnectSchema): FieldPlan[] {
    const plans = this.#plans[part];
    let plan = plans.get(schema);
    if (plan === undefined) {
      plan = [];
      for (const field of schema.fields ?? []) {
        const name = field.field ?? '';
        const slot = this.#slotOfField(part, name, () => sqlTypeOf(field));
        if (slot !== ignored) plan.push({ field: name, slot, encode: this.#encoderOf(slot, field) });
      }
      plans.set(schema, plan);
    }
    return plan;
  }

  #encoderOf(slot: number, schema: ConnectSchema | undefined, as?: As): Encoder {
    if (schema === undefined && as === undefined) return this.#plain[slot]!;
    const known = this.#compiled[slot]!;
    const key = schema ?? noSchema;
    let encoder = known.get(key);
    if (encoder === undefined) {
      encoder = encoderFor(this.slots[slot]!.column, { style: this.#style, schema, as });
      known.set(key, encoder);
    }
    return encoder;
  }

  /** Throws UnknownField. */
  #slotOfField(part: 'key' | 'value', field: string, typeOf: () => string | undefined): number {
    const { include, exclude, keyFields, key, columns, unknownFields } = this.definition;
    if (this.#explicit.some(explicit => explicit.part === part && explicit.path[0] === field)) return ignored;
    if (part === 'key' && key === 'record' && keyFields !== undefined && !keyFields.includes(field)) return ignored;
    if (part === 'value' && (exclude.includes(field) || (include !== undefined && !include.includes(field))))
      return ignored;
    if (this.table.columns.some(column => column.generated && column.name === field)) return ignored;
    const slot = columns[field] === undefined ? this.#byName.get(field) : undefined;
    if (slot !== undefined) return slot.index;
    if (unknownFields === 'ignore') return ignored;
    throw new UnknownField(this.table, field, typeOf());
  }

  #assignExplicit(reader: ChangeReader, record: LogRecord, partition: number): void {
    for (const { slot, part, path, as } of this.#explicit) {
      const isKey = this.keySlots.includes(slot);
      if (reader.operation === 'delete' && !isKey) continue;
      let value: unknown;
      let schema: ConnectSchema | undefined;
      switch (part) {
        case 'key':
        case 'value': {
          value = part === 'key' ? reader.key : reader.value;
          schema = part === 'key' ? reader.keySchema : reader.valueSchema;
          for (const name of path) {
            value = isObject(value) ? value[name] : undefined;
            schema = schema?.fields?.find(field => field.field === name);
          }
          break;
        }
        case 'header':
        case 'headers':
          value = headerOf(record, path[0]!);
          break;
        case 'topic':
          value = this.topic;
          break;
        case 'partition':
          value = partition;
          break;
        case 'offset':
          value = String(record.offset);
          break;
        case 'timestamp':
          value = Number(record.timestamp);
          break;
      }
      if (value === undefined) continue;
      const instant = part === 'timestamp' ? (as ?? 'epoch_ms') : as;
      this.#set(slot, value, this.#encoderOf(slot, schema, instant));
    }
  }
}

function headerOf(record: LogRecord, name: string): string | null {
  return record.headers.findLast(header => header.key === name)?.value?.toString() ?? null;
}

function isUnavailable(value: unknown): boolean {
  if (typeof value === 'string') return value === unavailable || value === unavailableBytes;
  return Array.isArray(value) && value.length === 1 && value[0] === unavailable;
}
