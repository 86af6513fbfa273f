// What a mirror is told to do: a part of millrace.yaml, `mirror.<name>`, or given over HTTP. Unknown keys are refused.
import { z } from 'zod';
import { type RemoteTarget, readTarget, targetSchema } from '../client/target.ts';
import { type DefinitionPlace, keyIn, parseDefinition } from '../runtime/definition.ts';
import { OperationalError } from '../runtime/errors.ts';
import { fillName, matchTopic } from '../runtime/patterns.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { type RemoteSource, readSource, sourceSchema } from '../source/definition.ts';
import { readsSchema, shareSchema, syncSchema, topicSettingsSchema } from './modes.ts';

const patterns = z.array(z.string().min(1));

const definitionSchema = z
  .strictObject({
    /** Where topics of this log go, or else where topics come from. */
    target: targetSchema.optional(),
    source: sourceSchema.optional(),
    /** Names; * stands for any characters. */
    topics: patterns.min(1),
    exclude: patterns.default([]),
    /** Pattern → name where they are copied to; {topic} is the topic's name, {1} what the first * stands for. The first that fits. */
    rename: z.record(z.string().min(1), z.string().min(1)).default({}),
    /** Of each topic's keys, %. */
    share: shareSchema.default(100),
    /** How long acks=all waits for the target; without it for nothing. */
    sync: syncSchema.nullable().default(null),
    /** Of topics whose primary is the target. */
    reads: readsSchema.default('follow'),
    /** Pattern → what is otherwise for the topics that it fits. The first that fits. */
    modes: z.record(z.string().min(1), topicSettingsSchema).default({}),
    /** Of topics that are there when it begins; what is made later is copied from its beginning. */
    start: z.enum(['earliest', 'latest']).default('earliest'),
    /** Whose committed offsets go along. */
    groups: patterns.default(['*']),
    groupsEveryMs: z.number().int().min(100).max(3_600_000).default(5000),
    /** Stops at a record that cannot be taken, or that is gone before it was copied. */
    strict: z.boolean().default(false),
    deadLetterTopic: z
      .string()
      .regex(/^[a-zA-Z0-9._-]{1,249}$/, 'a name that a topic can have')
      .optional(),
    /** Of batches on their way, over all partitions. */
    bufferBytes: z
      .number()
      .int()
      .min(1024 * 1024)
      .max(1024 * 1024 * 1024)
      .default(8 * 1024 * 1024),
    throttle: z
      .strictObject({
        recordsPerSecond: z.number().positive().optional(),
        bytesPerSecond: z.number().positive().optional(),
      })
      .readonly()
      .default({}),
  })
  .readonly();

const namePattern = /^[a-z][a-z0-9_-]{0,60}$/;

type Read = z.infer<typeof definitionSchema>;

interface Definition extends Omit<Read, 'target' | 'source' | 'deadLetterTopic'> {
  readonly name: string;
  readonly deadLetterTopic: string;
}

/** Out of this log. */
export interface OutboundDefinition extends Definition {
  readonly target: RemoteTarget;
  readonly source?: undefined;
}

/** Into this log. */
export interface InboundDefinition extends Definition {
  readonly source: RemoteSource;
  readonly target?: undefined;
}

export type MirrorDefinition = OutboundDefinition | InboundDefinition;

export interface DefinitionGiven {
  /** That the definition is in; undefined over HTTP. */
  readonly file?: string | undefined;
  readonly references?: ReferenceSources;
}

/** Throws an OperationalError that names what is wrong and what was expected. */
export function readDefinition(name: string, value: unknown, given: DefinitionGiven = {}): MirrorDefinition {
  const place: DefinitionPlace = { path: ['mirror', name], file: given.file };
  if (!namePattern.test(name)) {
    throw new OperationalError(`${keyIn(place)} has a name that a mirror cannot have`, {
      code: 'BAD_SETTING',
      hint: 'give up to 61 small letters, digits, hyphens and underscores, a letter first',
    });
  }
  const { target, source, ...rest } = parseDefinition(definitionSchema, value, place);
  const definition = { ...rest, name, deadLetterTopic: rest.deadLetterTopic ?? `${name}.dead-letter` };
  if (target !== undefined && source === undefined) {
    return Object.freeze({ ...definition, target: readTarget(target, place, given.references) });
  }
  if (source !== undefined && target === undefined) {
    const outward = ['share', 'sync', 'reads', 'modes'].find(key => Object.hasOwn(Object(value), key));
    if (outward) {
      throw new OperationalError(`${keyIn(place, outward)} is for topics that go out of here`, {
        code: 'BAD_SETTING',
        hint: 'take it out, or give a target instead of a source',
      });
    }
    return Object.freeze({ ...definition, source: readSource(source, place, given.references) });
  }
  throw new OperationalError(
    `${keyIn(place)} has ${target ? 'both a target and a source' : 'no target and no source'}`,
    {
      code: 'BAD_SETTING',
      hint: 'give target for topics that go there from here, or source for those that come from there',
    },
  );
}

export const bootstrapOf = ({ source, target }: MirrorDefinition): string =>
  (source ?? target).bootstrap.map(({ host, port }) => `${host}:${port}`).join(',');

/** The topic's name where it is copied to; undefined where it is not copied. */
export function targetNameOf(definition: MirrorDefinition, topic: string): string | undefined {
  const { topics, exclude } = definition;
  if (matchTopic(topics, topic) === undefined || matchTopic(exclude, topic) !== undefined) return undefined;
  const name = renamed(definition, topic);
  // A topic of this log, and never copied: of this log's neither out nor over it.
  const here = definition.source ? name : topic;
  return here === definition.deadLetterTopic ? undefined : name;
}

function renamed({ rename }: MirrorDefinition, topic: string): string {
  for (const [pattern, template] of Object.entries(rename)) {
    const stars = matchTopic([pattern], topic);
    if (stars) return fillName(template, topic, stars);
  }
  return topic;
}

/** Why a topic cannot be copied as things are; others can. */
export class TopicMissing extends Error {
  override name = 'TopicMissing';
}

/** What a person must decide: the mirror does not try again by itself. */
export class MirrorStopped extends Error {
  override name = 'MirrorStopped';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}
