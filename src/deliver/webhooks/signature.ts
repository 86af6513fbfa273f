// Signatures as Standard Webhooks has them (standard-webhooks.md, "Signature scheme"): HMAC-SHA256 of id, time and body,
// one for each key, so that a receiver which knows the old or the new one can verify while keys are changed.
import { createHmac } from 'node:crypto';

/** The specification asks for 24 bytes at least, and its own test vectors have one of 18. */
const minKeyBytes = 16;
const maxKeyBytes = 64;

/** The bytes of `whsec_…`; undefined for what is no such secret. The prefix may be left out. */
export function keyOf(secret: string): Buffer | undefined {
  const text = secret.startsWith('whsec_') ? secret.slice('whsec_'.length) : secret;
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return undefined;
  const key = Buffer.from(text, 'base64');
  return key.length >= minKeyBytes && key.length <= maxKeyBytes ? key : undefined;
}

/** The value of webhook-signature. `timestampS`: of the attempt, seconds since 1970. */
export function sign(keys: readonly Buffer[], id: string, timestampS: number, body: string): string {
  const content = `${id}.${timestampS}.${body}`;
  return keys.map(key => `v1,${createHmac('sha256', key).update(content).digest('base64')}`).join(' ');
}
