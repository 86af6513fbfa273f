// What a mirror is told to do: a part of millrace.yaml, `mirror.<name>`, or given over HTTP. Unknown keys are refused.
import { z } from 'zod';
import { type RemoteTarget, readTarget, targetSchema } from '../client/target.ts';
import { type DefinitionPlace, keyIn, parseDefinition } from '../runtime/definition.ts';
import { OperationalError } from '../runtime/errors.ts';
import { fillName, matchTopic } from '../runtime/patterns.ts';
import type { ReferenceSources } from '../runtime/references.ts';

const patterns = z.array(z.string().min(1));

const definitionSchema = z
  .strictObject({
    target: targetSchema,
    /** Names; * stands for any characters. */
    topics: patterns.min(1),
    exclude: patterns.default([]),
    /** Pattern → name in the target; {topic} is the topic's name, {1} what the first * stands for. The first that fits. */
    rename: z.record(z.string().min(1), z.string().min(1)).default({}),
    /** Of topics that are there when it begins; what is made later is copied from its beginning. */
    start: z.enum(['earliest', 'latest']).default('earliest'),
    /** Whose committed offsets go along. */
    groups: patterns.default(['*']),
    groupsEveryMs: z.number().int().min(100).max(3_600_000).default(5000),
    /** Stops at a record that the target refuses, or that is gone before it was copied. */
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
      .default(16 * 1024 * 1024),
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

export interface MirrorDefinition extends Omit<Read, 'target' | 'deadLetterTopic'> {
  readonly name: string;
  readonly target: RemoteTarget;
  readonly deadLetterTopic: string;
}

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
  const definition = parseDefinition(definitionSchema, value, place);
  return Object.freeze({
    ...definition,
    name,
    target: readTarget(definition.target, place, given.references),
    deadLetterTopic: definition.deadLetterTopic ?? `${name}.dead-letter`,
  });
}

/** The topic's name in the target; undefined where it is not copied. */
export function targetNameOf(definition: MirrorDefinition, topic: string): string | undefined {
  const { topics, exclude, rename, deadLetterTopic } = definition;
  if (topic === deadLetterTopic || matchTopic(topics, topic) === undefined) return undefined;
  if (matchTopic(exclude, topic) !== undefined) return undefined;
  for (const [pattern, template] of Object.entries(rename)) {
    const stars = matchTopic([pattern], topic);
    if (stars) return fillName(template, topic, stars);
  }
  return topic;
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
