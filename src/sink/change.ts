// What a record asks for, by the format of its topic: a row written, a row deleted, a table emptied.
import type { LogRecord } from '../protocol/records.ts';
import { BadRecord } from './bad-record.ts';
import type { SinkDefinition } from './definition.ts';
import { ExactNumber } from './json.ts';
import { type PayloadFormat, PayloadReader } from './payload.ts';
import type { ConnectSchema } from './schema.ts';

export type Operation = 'write' | 'delete' | 'truncate';

/** Reads records of one topic. What was read last is in its fields: no object per record. */
export class ChangeReader {
  readonly #definition: SinkDefinition;
  readonly #keys: PayloadReader;
  readonly #values: PayloadReader;
  readonly readsKey: boolean;
  readonly #rowSchemas = new WeakMap<ConnectSchema, ConnectSchema | undefined>();
  operation: Operation = 'write';
  /** Undefined where the sink does not look at keys, null where the record has none. */
  key: unknown;
  keySchema: ConnectSchema | undefined;
  /** The row, or of a delete what is known of it. */
  value: unknown;
  valueSchema: ConnectSchema | undefined;
  /** Columns whose values were not logged, in format plain. */
  unchanged: readonly string[] | undefined;

  constructor(definition: SinkDefinition) {
    this.#definition = definition;
    const { format, keyFormat, columns } = definition;
    const valueFormat: PayloadFormat = format === 'text' || format === 'bytes' ? format : 'json';
    this.#keys = new PayloadReader(keyFormat, 'key');
    this.#values = new PayloadReader(valueFormat, 'value');
    this.readsKey =
      definition.key === 'record' ||
      Object.values(columns).some(({ from }) => from === 'key' || from.startsWith('key.'));
  }

  /** Throws BadRecord. */
  read(record: LogRecord, exact: boolean): void {
    const { key, value } = record;
    this.unchanged = undefined;
    if (this.readsKey) {
      this.key = key === null ? null : this.#keys.read(key, exact);
      this.keySchema = this.#keys.schema;
    }
    if (value === null) {
      this.#tombstone();
      return;
    }
    const payload = this.#values.read(value, exact);
    const { schema } = this.#values;
    const { format } = this.#definition;
    if (payload === null) {
      this.#tombstone();
    } else if (format === 'debezium') {
      this.#debezium(payload, schema);
    } else if (format === 'plain') {
      this.#plain(payload);
    } else {
      this.operation = 'write';
      this.value = payload;
      this.valueSchema = schema;
    }
  }

  /** Where a part's payload begins in the record that was read last; undefined where that is not known. */
  startOf(part: 'key' | 'value'): number | undefined {
    return part === 'key' ? this.#keys.start : this.#values.start;
  }

  #tombstone(): void {
    if (!this.#definition.delete) {
      // Debezium's and ours come after the delete, which has been seen already.
      if (this.#definition.format !== 'json') throw new BadRecord('a record without a value, and delete is off');
      throw new BadRecord('a record without a value: set delete: true to delete the row of its key');
    }
    this.operation = 'delete';
    this.value = undefined;
    this.valueSchema = undefined;
  }

  #debezium(payload: unknown, schema: ConnectSchema | undefined): void {
    if (!isObject(payload) || typeof payload.op !== 'string') {
      throw new BadRecord('not an envelope of Debezium: it has no op');
    }
    this.#operation(payload.op, payload.after, payload.before);
    this.valueSchema = schema && this.#rowSchema(schema);
  }

  #plain(payload: unknown): void {
    if (!isObject(payload) || typeof payload.op !== 'string') {
      throw new BadRecord('not a change in format plain: it has no op');
    }
    this.#operation(payload.op, payload.data, payload.data);
    this.valueSchema = undefined;
    const { meta } = payload;
    if (isObject(meta) && Array.isArray(meta.unchanged)) this.unchanged = meta.unchanged as string[];
  }

  #operation(op: string, after: unknown, before: unknown): void {
    switch (op) {
      case 'c':
      case 'r':
      case 'u':
        this.operation = 'write';
        this.value = after;
        return;
      case 'd':
        if (!this.#definition.delete) throw new BadRecord('a row was deleted, and delete is off');
        this.operation = 'delete';
        this.value = before ?? undefined;
        return;
      case 't':
        this.operation = 'truncate';
        return;
      default:
        throw new BadRecord(`a change of op ${JSON.stringify(op)}, which no table takes`);
    }
  }

  /** Of `after`, in the envelope's schema. */
  #rowSchema(schema: ConnectSchema): ConnectSchema | undefined {
    if (!this.#rowSchemas.has(schema)) {
      this.#rowSchemas.set(
        schema,
        schema.fields?.find(field => field.field === 'after'),
      );
    }
    return this.#rowSchemas.get(schema);
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return !Buffer.isBuffer(value) && !(value instanceof ExactNumber);
}
