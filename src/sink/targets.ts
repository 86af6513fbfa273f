// The tables that a sink writes to: read when their topics are first met, read again when they may have changed, and made
// or given columns where the definition says so.
import type { ClientBase } from 'pg';
import { inTransaction, type Pool } from '../postgres/pool.ts';
import type { LogRecord } from '../protocol/records.ts';
import { BadRecord } from './bad-record.ts';
import { quote, readTable } from './catalogue.ts';
import { type ChangeReader, isObject } from './change.ts';
import { rollDays } from './day-partitions.ts';
import { type SinkDefinition, type TableName, tableOf } from './definition.ts';
import { Mapping, MappingError } from './mapping.ts';
import { type ConnectSchema, sqlTypeOf, sqlTypeOfValue } from './schema.ts';
import { createTable, type NewColumn } from './statements.ts';

/** Of any sink: DDL of two at once may fail for either. */
const ddlLock = 5_742_861_195n;

export class Targets {
  readonly #pool: Pool;
  readonly #definition: SinkDefinition;

  /** `pool`: of the target database. */
  constructor(pool: Pool, definition: SinkDefinition) {
    this.#pool = pool;
    this.#definition = definition;
  }

  /** Undefined where the table is to be made of the first record. Throws MappingError. */
  async mapping(topic: string): Promise<Mapping | undefined> {
    const name = tableOf(this.#definition, topic);
    const table = await readTable(this.#pool, name);
    if (table) return new Mapping(this.#definition, table, topic);
    if (this.#definition.create) return undefined;
    throw new MappingError(`there is no table ${show(name)}: create it, or set create: true`);
  }

  /** Makes the table that a topic's record asks for. `reader` has read the record. */
  async create(topic: string, reader: ChangeReader, record: LogRecord): Promise<Mapping> {
    const name = tableOf(this.#definition, topic);
    const { columns, key } = this.#columnsOf(reader, record);
    if (columns.length === 0) throw new BadRecord('the record has no fields to make a table of');
    const sql = `${quote(name.schema)}.${quote(name.name)}`;
    await this.#change(async client => {
      const { rowCount } = await client.query('SELECT FROM pg_namespace WHERE nspname = $1', [name.schema]);
      if (rowCount === 0) await client.query(`CREATE SCHEMA ${quote(name.schema)}`);
      await client.query(createTable(sql, columns, key, this.#definition));
    });
    await this.roll(topic);
    return (await this.mapping(topic))!;
  }

  /** Makes and drops the daily partitions of a topic's table, where the definition has them. */
  async roll(topic: string): Promise<void> {
    const { dailyPartitions } = this.#definition;
    if (!dailyPartitions) return;
    const name = tableOf(this.#definition, topic);
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    try {
      // One at a time: sinks and tasks may have the same table.
      await client.query('SELECT pg_advisory_lock($1)', [ddlLock]);
      await rollDays(client, name, { keepDays: undefined, ...dailyPartitions }, Date.now());
    } finally {
      await client.query('SELECT pg_advisory_unlock($1)', [ddlLock]).catch((error: Error) => {
        broken = error;
      });
      client.release(broken);
    }
  }

  /** Adds a column. */
  async evolve(mapping: Mapping, field: string, sqlType: string): Promise<Mapping> {
    const { table, topic } = mapping;
    await this.#change(async client => {
      const now = await readTable(client, table.name);
      // Another task may have added it.
      if (now?.columns.some(column => column.name === field)) return;
      await client.query(`ALTER TABLE ${table.sql} ADD COLUMN ${quote(field)} ${sqlType}`);
    });
    return (await this.mapping(topic))!;
  }

  #change(work: (client: ClientBase) => Promise<void>): Promise<void> {
    return inTransaction(this.#pool, async client => {
      await client.query('SELECT pg_advisory_xact_lock($1)', [ddlLock]);
      await work(client);
    });
  }

  #columnsOf(reader: ChangeReader, record: LogRecord): { columns: NewColumn[]; key: string[] } {
    const { key: from, keyFields, include, exclude, columns: explicit } = this.#definition;
    const found = new Map<string, string>();
    const add = (part: 'key' | 'value', fields: unknown, schema: ConnectSchema | undefined): string[] => {
      const names: string[] = [];
      if (!isObject(fields)) return names;
      for (const name of schema?.fields?.map(field => field.field ?? '') ?? Object.keys(fields)) {
        if (part === 'value' && (exclude.includes(name) || (include && !include.includes(name)))) continue;
        if (part === 'key' && keyFields && !keyFields.includes(name)) continue;
        const field = schema?.fields?.find(candidate => candidate.field === name);
        const type = field ? sqlTypeOf(field) : sqlTypeOfValue(fields[name]);
        const renamed = Object.entries(explicit).find(([, { from: origin }]) => origin === `${part}.${name}`)?.[0];
        if (type !== undefined) found.set(renamed ?? name, type);
        names.push(renamed ?? name);
      }
      return names;
    };
    let key: string[] = [];
    if (from === 'record') {
      key = add('key', reader.key, reader.keySchema);
      if (key.length === 0 && reader.key != null && keyFields) {
        key = [keyFields[0]!];
        found.set(key[0]!, reader.keySchema ? sqlTypeOf(reader.keySchema) : (sqlTypeOfValue(reader.key) ?? 'text'));
      }
    } else if (from === 'coordinates') {
      key = [...(keyFields ?? ['kafka_topic', 'kafka_partition', 'kafka_offset'])];
      for (const [i, type] of ['text', 'integer', 'bigint'].entries()) if (key[i]) found.set(key[i], type);
    } else if (keyFields) {
      key = [...keyFields];
      if (from === 'headers') for (const name of key) found.set(name, 'text');
    }
    add('value', reader.value, reader.valueSchema);
    for (const [name, { from: origin, as }] of Object.entries(explicit)) {
      if (!found.has(name)) found.set(name, originType(origin, as, reader, record));
    }
    return { columns: Array.from(found, ([name, type]) => ({ name, type })), key };
  }
}

function originType(origin: string, as: string | undefined, reader: ChangeReader, record: LogRecord): string {
  if (as?.startsWith('epoch') || origin === 'timestamp') return 'timestamptz';
  if (as === 'json') return 'jsonb';
  if (as === 'base64' || as === 'hex' || as === 'utf8') return 'bytea';
  if (origin === 'partition') return 'integer';
  if (origin === 'offset') return 'bigint';
  const [part, ...path] = origin.split('.');
  let value: unknown = part === 'key' ? reader.key : part === 'value' ? reader.value : undefined;
  for (const name of path) value = isObject(value) ? value[name] : undefined;
  if (Buffer.isBuffer(value) || (record.value !== null && value === record.value)) return 'bytea';
  return sqlTypeOfValue(value) ?? 'text';
}

const show = ({ schema, name }: TableName): string => `${schema}.${name}`;
