// What a capture is told to do: a part of millrace.yaml, `capture.<name>`, or given over HTTP. Unknown keys are refused.
import { z } from 'zod';
import { type RemoteTarget, readTarget, targetSchema } from '../client/target.ts';
import { type DefinitionPlace, keyIn, parseDefinition } from '../runtime/definition.ts';
import { OperationalError } from '../runtime/errors.ts';
import { dereference, type ReferenceSources, refusePassword } from '../runtime/references.ts';

const tablePattern = z.string().regex(/^[^.]+\.[^.]+$/, 'schema.table, where * stands for any characters');
const columnName = z.string().regex(/^[^.]+\.[^.]+\.[^.]+$/, 'schema.table.column');

const outboxSchema = z
  .strictObject({
    table: tablePattern,
    /** {route} is the value of the column aggregatetype. */
    topic: z.string().default('outbox.event.{route}'),
  })
  .readonly();

const definitionSchema = z
  .strictObject({
    /** The database to capture; this one where there is none. */
    source: z.string().optional(),
    tables: z.array(tablePattern).min(1),
    exclude: z.array(tablePattern).default([]),
    operations: z
      .array(z.enum(['create', 'update', 'delete', 'truncate']))
      .default(['create', 'update', 'delete', 'truncate']),
    excludeColumns: z.array(columnName).default([]),
    /** Columns whose values are replaced. */
    maskColumns: z.record(columnName, z.string()).default({}),
    /** Tables whose key is not their primary key. */
    keys: z.record(tablePattern, z.array(z.string()).min(1)).default({}),
    prefix: z
      .string()
      .regex(/^[a-zA-Z0-9._-]+$/, 'letters, digits, periods, underscores and hyphens')
      .optional(),
    topic: z.string().default('{prefix}.{schema}.{table}'),
    partitions: z.number().int().min(1).max(100_000).optional(),
    topicConfig: z.record(z.string(), z.string()).default({}),
    format: z.enum(['debezium', 'plain', 'after']).default('debezium'),
    /** Kafka Connect's schema and payload in keys and values. */
    schemas: z.boolean().default(false),
    /** The block `transaction` in events, and where transactions begin and end in {prefix}.transaction. */
    transactionMetadata: z.boolean().default(false),
    decimals: z.enum(['precise', 'string', 'double']).optional(),
    binary: z.enum(['base64', 'base64-url-safe', 'hex']).default('base64'),
    tombstones: z.boolean().default(true),
    messages: z.boolean().default(true),
    /**
     * initial: the tables' rows, then their changes; when_needed: that again when the slot has been lost; only: the rows,
     * then it ends; never: changes alone.
     */
    snapshot: z.enum(['initial', 'never', 'only', 'when_needed']).default('initial'),
    /** Sessions that read, of one table or of several. */
    snapshotReaders: z.number().int().min(1).max(16).default(2),
    /** Of all of them together. */
    snapshotRowsPerSecond: z.number().positive().optional(),
    /** Of rows as text, of all of them together. */
    snapshotBytesPerSecond: z.number().positive().optional(),
    slot: z
      .string()
      .regex(/^[a-z0-9_]{1,63}$/, 'up to 63 small letters, digits and underscores')
      .optional(),
    publication: z.string().min(1).max(63).optional(),
    failover: z.boolean().default(false),
    outbox: outboxSchema.optional(),
    /** A remote Kafka to write to, instead of this log. */
    target: targetSchema.optional(),
  })
  .refine(({ format, schemas, transactionMetadata }) => format === 'debezium' || !(schemas || transactionMetadata), {
    message: 'schemas and transactionMetadata belong to format debezium',
    path: ['format'],
  })
  .readonly();

const namePattern = /^[a-z][a-z0-9_]{0,40}$/;

type Read = z.infer<typeof definitionSchema>;

export interface CaptureDefinition extends Omit<Read, 'slot' | 'publication' | 'prefix' | 'decimals' | 'target'> {
  readonly name: string;
  /** `source` before it was looked up, which may be shown. */
  readonly sourceAsWritten: string | undefined;
  readonly slot: string;
  readonly publication: string;
  readonly prefix: string;
  readonly decimals: 'precise' | 'string' | 'double';
  readonly target: RemoteTarget | undefined;
}

export interface DefinitionGiven {
  /** That the definition is in; undefined over HTTP. */
  readonly file?: string | undefined;
  /** Where references are looked up; then passwords are refused. */
  readonly references?: ReferenceSources;
}

/** Throws an OperationalError that names what is wrong. */
export function readDefinition(name: string, value: unknown, given: DefinitionGiven = {}): CaptureDefinition {
  const place: DefinitionPlace = { path: ['capture', name], file: given.file };
  if (!namePattern.test(name)) {
    throw new OperationalError(`${keyIn(place)} has a name that a capture cannot have`, {
      code: 'BAD_SETTING',
      hint: 'give up to 41 small letters, digits and underscores, a letter first',
    });
  }
  const definition = parseDefinition(definitionSchema, value, place);
  return Object.freeze({
    ...definition,
    name,
    source: readSource(definition.source, keyIn(place, 'source'), given.references),
    sourceAsWritten: definition.source,
    slot: definition.slot ?? `millrace_${name}`,
    publication: definition.publication ?? `millrace_${name}`,
    prefix: definition.prefix ?? name,
    decimals: definition.decimals ?? (definition.format === 'debezium' ? 'precise' : 'string'),
    target: definition.target && readTarget(definition.target, place, given.references),
  });
}

/** The source's URL. */
export function readSource(
  written: string | undefined,
  where: string,
  references: ReferenceSources | undefined,
): string | undefined {
  if (written === undefined || references === undefined) return written;
  refusePassword(written, 'source', where);
  return dereference(written, where, references);
}

/** Whether `schema.table` matches one of the patterns; * stands for any characters. */
export function matches(patterns: readonly string[], schema: string, table: string): boolean {
  return patterns.some(pattern => {
    const escaped = pattern.replaceAll(/[\\^$.|?+()[\]{}]/g, '\\$&').replaceAll('*', '.*');
    return new RegExp(`^${escaped}$`, 's').test(`${schema}.${table}`);
  });
}

/** How to go on without what has been lost. */
export const gapHint = ({ name, slot }: CaptureDefinition): string =>
  `accept the gap with: SELECT pg_drop_replication_slot('${slot}'); DELETE FROM kafka.captures WHERE name = '${name}'; the capture then begins anew`;

/** Schema kafka is never captured: its own log would come back for ever. */
export function isCaptured(definition: CaptureDefinition, schema: string, table: string): boolean {
  if (schema === 'kafka' || schema === 'pg_catalog' || schema === 'information_schema') return false;
  const outbox = definition.outbox === undefined ? [] : [definition.outbox.table];
  return matches([...definition.tables, ...outbox], schema, table) && !matches(definition.exclude, schema, table);
}

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** Whether a partition is captured that the publication publishes under its own name. */
export function isPartCaptured(
  definition: CaptureDefinition,
  part: TableName,
  ancestors: readonly TableName[],
): boolean {
  if (matches(definition.exclude, part.schema, part.name)) return false;
  return ancestors.some(({ schema, name }) => isCaptured(definition, schema, name));
}

export function isOutbox(definition: CaptureDefinition, schema: string, table: string): boolean {
  return definition.outbox !== undefined && matches([definition.outbox.table], schema, table);
}

/** The topic of a table; what Kafka allows in no name becomes an underscore, as Debezium has it. */
export function topicOf(definition: CaptureDefinition, schema: string, table: string): string {
  return definition.topic
    .replaceAll('{prefix}', definition.prefix)
    .replaceAll('{schema}', schema)
    .replaceAll('{table}', table)
    .replaceAll(/[^a-zA-Z0-9._-]/g, '_');
}
