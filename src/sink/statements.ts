// The SQL that takes a run of rows into its table. Rows are staged in a temporary table, then go in sorted by key, so that
// transactions lock rows in one order and the index is walked once; of a key the last row counts. Where nothing can be in
// the way, rows are copied into the table itself.
import { quote, type TargetTable } from './catalogue.ts';
import type { SinkDefinition } from './definition.ts';
import type { Mapping, Slot } from './mapping.ts';

/** Rows with the same columns, one after another. */
export interface RunShape {
  readonly mapping: Mapping;
  /** The columns that rows have, by their slots. */
  readonly slots: readonly number[];
  /** They are copied into the table itself. In mode upsert that is refused where a key is there already. */
  readonly direct: boolean;
}

/** Whether COPY takes all columns in the form that they have here. */
export function isCopyable({ slots }: Mapping, columns: readonly number[]): boolean {
  return columns.every(slot => slots[slot]!.staging.binary);
}

const staged = ({ index }: Slot): string => `c${index}`;

/** Made once for a session and a version of the table. */
export function createStage(stage: string, { slots }: Mapping): string {
  const columns = slots.map(slot => {
    const collation =
      slot.column.collation !== undefined && slot.staging.binary ? ` COLLATE ${slot.column.collation}` : '';
    return `${staged(slot)} ${slot.staging.sql}${collation}`;
  });
  return `CREATE TEMP TABLE ${stage} (millrace_seq int4, millrace_deleted bool, ${columns.join(', ')}) ON COMMIT DELETE ROWS`;
}

export function copyInto(shape: RunShape, stage: string): string {
  const slots = shape.slots.map(slot => shape.mapping.slots[slot]!);
  if (shape.direct) {
    return `COPY ${shape.mapping.table.sql} (${slots.map(({ column }) => quote(column.name)).join(', ')}) FROM STDIN (FORMAT binary)`;
  }
  return `COPY ${stage} (millrace_seq, millrace_deleted${slots.map(slot => `, ${staged(slot)}`).join('')}) FROM STDIN (FORMAT binary)`;
}

export interface Staged {
  /** The first row's number, and what follows the last. */
  readonly from: number;
  readonly to: number;
  readonly deletes: number;
}

/** Fails without the unique index, as ON CONFLICT would, and keeps it until COMMIT: no key is written twice. */
export function keepUnique({ table, keyColumns }: Mapping): string {
  const keys = keyColumns.map(quote).join(', ');
  return `INSERT INTO ${table.sql} (${keys}) OVERRIDING SYSTEM VALUE SELECT ${keys} FROM ${table.sql} WHERE false ON CONFLICT (${keys}) DO NOTHING`;
}

/** What follows the COPY of rows: nothing where they are in the table already. */
export function applyRows(shape: RunShape, stage: string, { from, to, deletes }: Staged): string[] {
  if (shape.direct) return [];
  const { mapping } = shape;
  const { table, definition, keySlots } = mapping;
  const slots = shape.slots.map(slot => mapping.slots[slot]!);
  const keys = keySlots.map(slot => mapping.slots[slot]!);
  const list = (of: readonly Slot[]): string => of.map(({ column }) => quote(column.name)).join(', ');
  const values = slots.map(slot => `${slot.staging.cast(staged(slot))} AS ${quote(slot.column.name)}`).join(', ');
  const rows = `SELECT ${values}, millrace_seq, millrace_deleted FROM ${stage} WHERE millrace_seq >= ${from} AND millrace_seq < ${to}`;
  const overriding = slots.some(({ column }) => column.identityAlways) ? ' OVERRIDING SYSTEM VALUE' : '';
  const insert = `INSERT INTO ${table.sql} AS t (${list(slots)})${overriding}`;
  if (definition.mode === 'insert') {
    const keyColumns = keys.length > 0 ? list(keys) : 'millrace_seq';
    return [`${insert} SELECT ${list(slots)} FROM (${rows}) s ORDER BY ${keyColumns}`];
  }
  const last = `SELECT DISTINCT ON (${list(keys)}) * FROM (${rows}) r ORDER BY ${list(keys)}, millrace_seq DESC`;
  const others = slots.filter(slot => !keys.includes(slot));
  const joined = keys.map(({ column }) => `t.${quote(column.name)} = s.${quote(column.name)}`).join(' AND ');
  const statements: string[] = [];
  if (deletes > 0) {
    const gone = `SELECT * FROM (${last}) l WHERE millrace_deleted`;
    statements.push(
      lockInOrder(table, gone, joined, keys),
      `DELETE FROM ${table.sql} t USING (${gone}) s WHERE ${joined}`,
    );
    if (deletes === to - from) return statements;
  }
  const kept = deletes > 0 ? `SELECT * FROM (${last}) l WHERE NOT millrace_deleted` : last;
  if (definition.mode === 'update') {
    if (others.length === 0) return statements;
    const set = others.map(({ column }) => `${quote(column.name)} = s.${quote(column.name)}`).join(', ');
    statements.push(lockInOrder(table, kept, joined, keys));
    statements.push(`UPDATE ${table.sql} t SET ${set} FROM (${kept}) s WHERE ${joined}`);
    return statements;
  }
  const set = others.map(({ column }) => `${quote(column.name)} = excluded.${quote(column.name)}`).join(', ');
  const action = others.length > 0 ? `DO UPDATE SET ${set}` : 'DO NOTHING';
  const order = deletes > 0 ? ` ORDER BY ${list(keys)}` : '';
  statements.push(`${insert} SELECT ${list(slots)} FROM (${kept}) s${order} ON CONFLICT (${list(keys)}) ${action}`);
  return statements;
}

/** A join updates and deletes in any order; transactions that did so could wait for each other. */
function lockInOrder(table: TargetTable, rows: string, joined: string, keys: readonly Slot[]): string {
  const order = keys.map(({ column }) => `t.${quote(column.name)}`).join(', ');
  return `SELECT count(*) FROM (SELECT FROM ${table.sql} t JOIN (${rows}) s ON ${joined} ORDER BY ${order} FOR UPDATE OF t) locked`;
}

/** For a table that is not there yet: the columns a first record shows. */
export interface NewColumn {
  readonly name: string;
  readonly type: string;
}

export function createTable(
  sql: string,
  columns: readonly NewColumn[],
  key: readonly string[],
  { mode, dailyPartitions }: SinkDefinition,
): string {
  const lines = columns.map(({ name, type }) => `${quote(name)} ${type}`);
  if (key.length > 0 && (mode !== 'insert' || key.every(name => columns.some(column => column.name === name)))) {
    lines.push(`PRIMARY KEY (${key.map(quote).join(', ')})`);
  }
  const partitioned = dailyPartitions ? ` PARTITION BY RANGE (${quote(dailyPartitions.column)})` : '';
  return `CREATE TABLE IF NOT EXISTS ${sql} (${lines.join(', ')})${partitioned}`;
}
