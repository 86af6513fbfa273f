// What an inbox is told to do: a part of millrace.yaml, `deliver.<name>`. Read with zod, unknown keys refused.
import { z } from 'zod';
import { type DefinitionPlace, keyIn, parseDefinition } from '../runtime/definition.ts';
import { OperationalError } from '../runtime/errors.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { type RemoteSource, readSource, sourceSchema } from '../source/definition.ts';
import { type Origin, parseOrigin } from './origin.ts';
import { duration, readKeys, topicName, type WebhookSettings, webhookSchema } from './webhooks/definition.ts';

const originSchema = z.string().transform((text, context): Origin => {
  const origin = parseOrigin(text);
  if (origin !== undefined) return origin;
  const message = 'key, value, header.NAME, topic, or a path into the JSON value such as $.user_id';
  context.addIssue({ code: 'custom', message });
  return z.NEVER;
});

const definitionSchema = z
  .strictObject({
    /** Names; * stands for any characters. */
    topics: z.array(z.string().min(1)).min(1),
    /** The Kafka to read from; this log where there is none. */
    source: sourceSchema.optional(),
    /** Whom a record is for. */
    subscriber: originSchema.prefault('key'),
    /** What a record is known by when it comes again; its topic, partition and offset where there is none. */
    id: originSchema.optional(),
    type: originSchema.optional(),
    priority: originSchema.optional(),
    /** When it is to be delivered; what has no such time, or one that is past, is delivered at once. */
    schedule: originSchema.optional(),
    /** When it is worth nothing any more. */
    expires: originSchema.optional(),
    data: originSchema.prefault('value'),
    /** written: a subscriber is moved on by what has been written to its connection; client: by POST /v1/ack. */
    acknowledge: z.enum(['written', 'client']).default('written'),
    /** Who reads it; both where there is a webhook. */
    channel: z.enum(['sse', 'webhook', 'both']).optional(),
    webhook: webhookSchema.optional(),
    /** Of this log; where records go that become no event. */
    deadLetterTopic: topicName.optional(),
    /** How long an event is kept, read or not, ms. */
    retention: duration(60_000).prefault('7d'),
    /** How long an id is remembered at least, ms. */
    window: duration(1000).prefault('1d'),
    start: z.enum(['earliest', 'latest']).default('earliest'),
    group: z.string().min(1).max(249).optional(),
  })
  .readonly();

const nameSchema = z
  .string()
  .regex(/^[a-z][a-z0-9_-]{0,60}$/, 'a name of small letters, digits, hyphens and underscores, a letter first');

type Read = z.infer<typeof definitionSchema>;

export interface InboxDefinition extends Omit<Read, 'source' | 'group' | 'channel' | 'webhook' | 'deadLetterTopic'> {
  readonly name: string;
  /** Undefined where it is this log. */
  readonly source: RemoteSource | undefined;
  readonly group: string;
  readonly channel: 'sse' | 'webhook' | 'both';
  /** Undefined where the channel is sse. */
  readonly webhook: WebhookSettings | undefined;
  readonly deadLetterTopic: string;
  readonly webhookDeadLetterTopic: string;
}

/** Throws an OperationalError that names the file, the key, and what was expected. With `references`, secrets are looked up. */
export function readDefinition(
  name: string,
  value: unknown,
  file: string | undefined,
  references?: ReferenceSources,
): InboxDefinition {
  const place: DefinitionPlace = { path: ['deliver', name], file };
  parseDefinition(nameSchema, name, place);
  const read = parseDefinition(definitionSchema, value, place);
  const { webhook, channel = webhook === undefined ? 'sse' : 'both' } = read;
  if ((channel === 'sse') !== (webhook === undefined)) {
    throw new OperationalError(
      `${keyIn(place, 'channel')} is ${channel}, ${webhook === undefined ? 'without' : 'with'} settings of a webhook`,
      { code: 'BAD_SETTING', hint: webhook === undefined ? 'give webhook its secrets' : 'remove one of the two' },
    );
  }
  if (webhook !== undefined && references !== undefined) readKeys(name, webhook, references);
  const lastRetry = webhook?.retries.reduce((sum, wait) => sum + wait, 0) ?? 0;
  if (lastRetry > read.retention) {
    throw new OperationalError(`${keyIn(place, 'webhook', 'retries')} take longer than events are kept`, {
      code: 'BAD_SETTING',
      hint: `give retries that sum up to less, or a retention above ${lastRetry} ms`,
    });
  }
  const source = read.source && readSource(read.source, place, references);
  const group = read.group ?? `deliver-${name}`;
  const deadLetterTopic = read.deadLetterTopic ?? `${name}.dead-letter`;
  const webhookDeadLetterTopic = webhook?.deadLetterTopic ?? deadLetterTopic;
  return Object.freeze({ ...read, name, source, channel, webhook, group, deadLetterTopic, webhookDeadLetterTopic });
}

/** Whether the topic is one of the inbox's. What it has given up does not come to it again. */
export function reads(
  { topics, source, deadLetterTopic, webhookDeadLetterTopic }: InboxDefinition,
  topic: string,
): boolean {
  if (source === undefined && (topic === deadLetterTopic || topic === webhookDeadLetterTopic)) return false;
  return matchesTopic(topics, topic);
}

/** Whether one of the patterns is the topic's; * stands for any characters. */
export function matchesTopic(patterns: readonly string[], topic: string): boolean {
  return patterns.some(pattern => {
    const escaped = pattern.replaceAll(/[\\^$.|?+()[\]{}]/g, '\\$&').replaceAll('*', '.*');
    return new RegExp(`^${escaped}$`, 's').test(topic);
  });
}
