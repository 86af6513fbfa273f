// What a sink is told to do: a part of millrace.yaml, `sinks.<name>`, or given over HTTP. Unknown keys are refused.
import { z } from 'zod';
import { type DefinitionPlace, keyIn, parseDefinition } from '../runtime/definition.ts';
import { OperationalError } from '../runtime/errors.ts';
import { fillName, matchTopic } from '../runtime/patterns.ts';
import { dereference, type ReferenceSources, refusePassword } from '../runtime/references.ts';
import { type RemoteSource, readSource, sourceSchema } from '../source/definition.ts';

const asTypes = ['epoch_s', 'epoch_ms', 'epoch_us', 'epoch_ns', 'base64', 'hex', 'utf8', 'json', 'text'] as const;

/** How a value is read, where its column's type does not say enough. */
export type As = (typeof asTypes)[number];

const origin = z
  .string()
  .regex(
    /^((key|value)(\..+)?|headers?\..+|topic|partition|offset|timestamp)$/,
    'key, key.FIELD, value, value.FIELD.FIELD, header.NAME, topic, partition, offset or timestamp',
  );

const columnSchema = z.union([
  origin.transform(from => ({ from, as: undefined })),
  z.strictObject({ from: origin, as: z.enum(asTypes).optional() }).readonly(),
]);

const definitionSchema = z
  .strictObject({
    /** Names; * stands for any characters. */
    topics: z.array(z.string().min(1)).min(1),
    /** The Kafka to read from; this log where there is none. */
    source: sourceSchema.optional(),
    /** schema.table; {topic} is the topic's name, {1} what the first * of the pattern stands for. */
    table: z.string().min(1).default('{topic}'),
    /** The database to write to; the log's own where there is none. */
    database: z.string().min(1).optional(),
    mode: z.enum(['insert', 'upsert', 'update']).default('upsert'),
    key: z.enum(['record', 'value', 'headers', 'coordinates', 'none']).default('record'),
    keyFields: z.array(z.string().min(1)).min(1).optional(),
    format: z.enum(['json', 'debezium', 'plain', 'text', 'bytes']).default('json'),
    keyFormat: z.enum(['json', 'text', 'bytes']).default('json'),
    /** Column → where its value comes from. What is not named here goes by its own name. */
    columns: z.record(z.string(), columnSchema).default({}),
    include: z.array(z.string()).min(1).optional(),
    exclude: z.array(z.string()).default([]),
    unknownFields: z.enum(['error', 'ignore']).default('error'),
    /** What a column gets that a record has no field for: its default (or what it has), or NULL. */
    absent: z.enum(['keep', 'null']).default('keep'),
    delete: z.boolean().optional(),
    truncate: z.enum(['error', 'ignore', 'apply']).default('error'),
    create: z.boolean().default(false),
    /** A partition for each day by the column, UTC. */
    dailyPartitions: z
      .strictObject({
        column: z.string().min(1),
        keepDays: z.number().int().min(1).max(100_000).optional(),
        aheadDays: z.number().int().min(1).max(366).default(2),
      })
      .readonly()
      .optional(),
    evolve: z.boolean().default(false),
    tasks: z.number().int().min(1).max(64).default(2),
    batchRows: z.number().int().min(1).max(1_000_000).default(20_000),
    batchBytes: z
      .number()
      .int()
      .min(1024)
      .max(256 * 1024 * 1024)
      .default(8 * 1024 * 1024),
    lingerMs: z.number().int().min(0).max(60_000).default(50),
    errors: z.enum(['stop', 'dead-letter']).default('stop'),
    deadLetterTopic: z
      .string()
      .regex(/^[a-zA-Z0-9._-]{1,249}$/)
      .optional(),
    start: z.enum(['earliest', 'latest']).default('earliest'),
    group: z.string().min(1).max(249).optional(),
  })
  .readonly();

const namePattern = /^[a-z][a-z0-9_-]{0,60}$/;

type Read = z.infer<typeof definitionSchema>;

export interface SinkDefinition extends Omit<Read, 'source' | 'delete' | 'deadLetterTopic' | 'group'> {
  readonly name: string;
  readonly source: RemoteSource | undefined;
  readonly delete: boolean;
  readonly deadLetterTopic: string;
  readonly group: string;
}

export interface DefinitionGiven {
  /** That the definition is in; undefined over HTTP. */
  readonly file?: string | undefined;
  /** Where references are looked up; then passwords are refused. */
  readonly references?: ReferenceSources;
}

/** Throws an OperationalError that names what is wrong and what was expected. */
export function readDefinition(name: string, value: unknown, given: DefinitionGiven = {}): SinkDefinition {
  const place: DefinitionPlace = { path: ['sinks', name], file: given.file };
  const refuse = (message: string, hint: string): never => {
    throw new OperationalError(message, { code: 'BAD_SETTING', hint });
  };
  if (!namePattern.test(name)) {
    refuse(
      `${keyIn(place)} has a name that a sink cannot have`,
      'give up to 61 small letters, digits, hyphens and underscores, a letter first',
    );
  }
  const definition = parseDefinition(definitionSchema, value, place);
  const { mode, key, format } = definition;
  if (key === 'none' && mode !== 'insert') {
    refuse(`${keyIn(place, 'key')} is none`, `give record, value, headers or coordinates: mode ${mode} needs a key`);
  }
  if (definition.delete === true && (mode === 'insert' || key !== 'record')) {
    refuse(
      `${keyIn(place, 'delete')} is true`,
      'give mode upsert or update and key record: a tombstone has only a key',
    );
  }
  const envelope = format === 'debezium' || format === 'plain';
  return Object.freeze({
    ...definition,
    name,
    source: definition.source && readSource(definition.source, place, given.references),
    database: readDatabase(definition.database, keyIn(place, 'database'), given.references),
    delete: definition.delete ?? (envelope && mode !== 'insert' && key === 'record'),
    deadLetterTopic: definition.deadLetterTopic ?? `${definition.topics[0]!.replaceAll('*', '')}.dead-letter`,
    group: definition.group ?? `sink-${name}`,
  });
}

function readDatabase(
  written: string | undefined,
  where: string,
  references: ReferenceSources | undefined,
): string | undefined {
  if (written === undefined || references === undefined) return written;
  refusePassword(written, 'database', where);
  return dereference(written, where, references);
}

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** The table of a topic. The template is split at its first dot, so that a topic's own dots stay in the table's name. */
export function tableOf(definition: SinkDefinition, topic: string): TableName {
  const stars = matchTopic(definition.topics, topic) ?? [];
  const fill = (template: string): string => fillName(template, topic, stars);
  const dot = definition.table.indexOf('.');
  if (dot < 0) return { schema: 'public', name: fill(definition.table) };
  return { schema: fill(definition.table.slice(0, dot)), name: fill(definition.table.slice(dot + 1)) };
}
