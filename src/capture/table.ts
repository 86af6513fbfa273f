// One captured table as of one relation message: its columns with their converters, its key, how a row of it is
// written. A change of the table makes another one, so every row is read with the columns it was written with.
import type { Relation, Tuple } from '../postgres/pgoutput.ts';
import { type ColumnFacts, columnSchema } from './column-schema.ts';
import { beforePayload, tableKeySchema, tableValueSchema } from './envelope-schema.ts';
import { asciiJson, JsonBuffer } from './json-buffer.ts';
import { type Converter, converterFor, type TypeLookup, type ValueStyle } from './values.ts';

const nothingKnown: ColumnFacts = { required: false, defaultExpression: null };

export interface TableOptions {
  readonly style: ValueStyle;
  readonly types: TypeLookup;
  /** The key's columns by name; empty: records have no key. */
  readonly keyColumns: readonly string[];
  /** Columns that are left out. */
  readonly excluded: ReadonlySet<string>;
  /** Columns whose values are replaced by this text. */
  readonly masks: ReadonlyMap<string, string>;
  /** What the catalogue says of the columns, by name; empty: nothing is known. */
  readonly facts: ReadonlyMap<string, ColumnFacts>;
  /** What the schemas of its events are called after; absent: they have none. */
  readonly schemaName?: string;
}

interface Column {
  readonly index: number;
  readonly name: string;
  /** `"name":` */
  readonly label: Buffer;
  readonly convert: Converter;
  readonly placeholder: Buffer;
  /** In Debezium's style a column that cannot be NULL has a value even where none was logged. */
  readonly whenNull: Buffer;
  /** Of the field in its schema, the name included. */
  readonly schema: string;
}

export class Table {
  readonly schema: string;
  readonly name: string;
  readonly relationId: number;
  /** schema.table */
  readonly qualified: string;
  /** What stands before keys and values; undefined where they have no schemas. */
  readonly keyHead: Buffer | undefined;
  readonly valueHead: Buffer | undefined;
  /** `,"schema":…,"table":…`, as a part of JSON. */
  readonly names: Buffer;
  readonly columns: readonly Column[];
  readonly key: readonly Column[];
  /** Deletes say which row; without it they could not be told apart. */
  readonly hasIdentity: boolean;
  readonly #plain: boolean;
  readonly #keyIndexes: ReadonlySet<number>;

  constructor(relation: Relation, options: TableOptions) {
    this.schema = relation.schema;
    this.name = relation.name;
    this.relationId = relation.id;
    this.qualified = `${relation.schema}.${relation.name}`;
    this.names = Buffer.from(`,"schema":${asciiJson(relation.schema)},"table":${asciiJson(relation.name)}`);
    this.hasIdentity = relation.replicaIdentity !== 'nothing';
    this.#plain = options.style.style === 'plain';
    const all = relation.columns.map(({ name, typeOid, typeModifier }, index): Column => {
      const mask = options.masks.get(name);
      const convert =
        mask === undefined ? converterFor(typeOid, typeModifier, options.style, options.types) : masked(mask);
      const facts = options.facts.get(name) ?? nothingKnown;
      const schema = columnSchema({ typeOid, typeModifier }, facts, options.style, options.types, convert, {
        masked: mask !== undefined,
        typed: options.schemaName !== undefined,
      });
      return {
        index,
        name,
        label: jsonBytes(out => {
          out.text(name);
          out.byte(0x3a);
        }),
        convert,
        placeholder: Buffer.from(schema.whenUnchanged),
        whenNull: Buffer.from(this.#plain ? 'null' : schema.whenNull),
        schema: `${schema.json},"field":${asciiJson(name)}`,
      };
    });
    this.columns = all.filter(column => !options.excluded.has(column.name));
    this.key = options.keyColumns.flatMap(name => all.find(column => column.name === name) ?? []);
    if (this.key.length < options.keyColumns.length) this.key = [];
    this.#keyIndexes = new Set(this.key.map(column => column.index));
    const { schemaName } = options;
    if (schemaName !== undefined) {
      const schemas = (columns: readonly Column[]) => columns.map(column => column.schema);
      this.keyHead = beforePayload(tableKeySchema(schemaName, schemas(this.key)));
      this.valueHead = beforePayload(tableValueSchema(schemaName, schemas(this.columns)));
    }
  }

  get keyless(): boolean {
    return this.key.length === 0;
  }

  /** A record's key. */
  writeRecordKey(out: JsonBuffer, row: Tuple): void {
    if (this.keyHead === undefined) {
      this.writeKey(out, row);
      return;
    }
    out.raw(this.keyHead);
    this.writeKey(out, row);
    out.byte(0x7d);
  }

  writeKey(out: JsonBuffer, row: Tuple): void {
    out.byte(0x7b);
    for (let i = 0; i < this.key.length; i++) {
      if (i > 0) out.byte(0x2c);
      const column = this.key[i]!;
      out.raw(column.label);
      if (row.isNull(column.index)) out.ascii('null');
      else column.convert(out, row.bytes, row.starts[column.index]!, row.ends[column.index]!);
    }
    out.byte(0x7d);
  }

  /**
   * All columns of `row`; a value that was not logged is taken from `before` where that has it. Returns the names of
   * those that are nowhere: left out in the plain style, a placeholder in Debezium's.
   */
  writeRow(out: JsonBuffer, row: Tuple, before?: Tuple): string[] | undefined {
    let missing: string[] | undefined;
    let separator = 0x7b;
    for (const column of this.columns) {
      const { index } = column;
      let source = row;
      if (row.isUnchanged(index)) {
        if (before === undefined || before.isUnchanged(index) || before.isNull(index)) {
          missing ??= [];
          missing.push(column.name);
          if (this.#plain) continue;
          out.byte(separator);
          separator = 0x2c;
          out.raw(column.label);
          out.raw(column.placeholder);
          continue;
        }
        source = before;
      }
      out.byte(separator);
      separator = 0x2c;
      out.raw(column.label);
      if (source.isNull(index)) out.raw(column.whenNull);
      else column.convert(out, source.bytes, source.starts[index]!, source.ends[index]!);
    }
    if (separator === 0x7b) out.byte(0x7b);
    out.byte(0x7d);
    return missing;
  }

  /** Only the columns of the key. */
  writeKeyRow(out: JsonBuffer, row: Tuple): void {
    if (this.#plain) this.writeKey(out, row);
    else this.writeRow(out, row);
  }

  /** Whether `before`, which holds the replica identity's columns, has another key than `after`. */
  keyChanged(before: Tuple, after: Tuple): boolean {
    for (const index of this.#keyIndexes) {
      if (before.isNull(index) !== after.isNull(index)) return true;
      if (after.isUnchanged(index) || after.isNull(index)) continue;
      const from = before.bytes.subarray(before.starts[index], before.ends[index]);
      if (!from.equals(after.bytes.subarray(after.starts[index], after.ends[index]))) return true;
    }
    return false;
  }
}

function jsonBytes(write: (out: JsonBuffer) => void): Buffer {
  const out = new JsonBuffer(64);
  write(out);
  return out.copy();
}

function masked(mask: string): Converter {
  const json = jsonBytes(out => out.text(mask));
  return out => out.raw(json);
}
