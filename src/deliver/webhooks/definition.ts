// An inbox's webhook settings: the part `webhook` of its definition. Read from millrace.yaml by the process that leads the
// log, which keeps them in kafka.inboxes for all that send; secrets are references, looked up by each for itself.
import { z } from 'zod';
import { OperationalError } from '../../runtime/errors.ts';
import { dereference, isReference, type ReferenceSources } from '../../runtime/references.ts';
import { BadValue, milliseconds } from '../../runtime/setting-types.ts';
import { keyOf, type SigningKey, secretForms } from './signature.ts';

/** ms, or a number with a unit. */
export const duration = (min: number) =>
  z.coerce.string().transform((text, context) => {
    try {
      return milliseconds({ min }).parse(text);
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      context.addIssue({ code: 'custom', message: error.message });
      return z.NEVER;
    }
  });

export const topicName = z.string().regex(/^[a-zA-Z0-9._-]{1,249}$/, 'a topic’s name');

/** The specification's example: ten attempts over three days. */
const usualRetries = ['5s', '5m', '30m', '2h', '5h', '10h', '14h', '20h', '24h'];

export const webhookSchema = z
  .strictObject({
    /** For all subscribers that have no endpoint of their own. */
    url: z.string().refine(isWebUrl, 'an http or https URL without a password in it').optional(),
    secrets: z.array(z.string().refine(isReference, 'env:NAME or file:PATH, where a secret whsec_… is found')).min(1),
    /** subscriber: one after the other, in the inbox's order, whatever their priorities. */
    order: z.enum(['none', 'subscriber']).default('none'),
    timeout: duration(10).prefault('15s'),
    /** How long after a failed attempt the next is made. */
    retries: z.array(duration(1)).max(100).prefault(usualRetries),
    /** Requests to an endpoint at once. */
    concurrency: z.number().int().min(1).max(10_000).default(16),
    breaker: z
      .strictObject({
        /** So many failures in a row. */
        failures: z.number().int().min(1).default(10),
        /** Then one attempt after this, and after twice as long each time that it fails, up to an hour. */
        pause: duration(10).prefault('30s'),
      })
      .prefault({}),
    contentType: z.string().min(1).default('application/json'),
    deadLetterTopic: topicName.optional(),
  })
  .readonly();

export type WebhookSettings = z.infer<typeof webhookSchema>;

export function isWebUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, hostname } = new URL(text);
  return (protocol === 'https:' || protocol === 'http:') && username === '' && password === '' && hostname !== '';
}

/** Throws an OperationalError for a reference that leads nowhere, and for what is no secret. */
export function readKeys(inbox: string, { secrets }: WebhookSettings, references: ReferenceSources): SigningKey[] {
  return secrets.map(reference => {
    const where = `deliver.${inbox}.webhook.secrets`;
    const key = keyOf(dereference(reference, where, references));
    if (key !== undefined) return key;
    throw new OperationalError(`${where}: ${reference} holds no secret`, {
      code: 'BAD_SETTING',
      hint: `give ${secretForms}: echo whsec_$(openssl rand -base64 32)`,
    });
  });
}
