// Signatures as Standard Webhooks has them (standard-webhooks.md, "Signature scheme"): of id, time and body, one for each key,
// so that a receiver which knows the old or the new one can verify while keys are changed. v1 is HMAC-SHA256 with a shared
// secret; v1a is ed25519, of which a receiver needs the public key alone.
import { createHmac, createPrivateKey, createPublicKey, type KeyObject, sign as signWith } from 'node:crypto';

export interface SigningKey {
  /** With the scheme before it. */
  sign(content: string): string;
  /** whpk_…, of an ed25519 key. */
  readonly publicKey: string | undefined;
}

/** The specification asks for 24 bytes at least, and its own test vectors have one of 18. */
const minKeyBytes = 16;
const maxKeyBytes = 64;
const seedBytes = 32;
/** What is before the seed in PKCS #8, and before the public key in SubjectPublicKeyInfo (RFC 8410). */
const privatePrefix = Buffer.from('302e020100300506032b657004220420', 'hex');
const publicPrefixBytes = 12;

/** For messages. */
export const secretForms = 'whsec_ and 16 to 64 bytes in base64, or whsk_ and a private ed25519 key';

/** The key of `whsec_…`, which may be left out, or of `whsk_…`; undefined for what is no such secret. */
export function keyOf(secret: string): SigningKey | undefined {
  const [, prefix, text = ''] = /^(whsec_|whsk_|)([A-Za-z0-9+/]+={0,2})$/.exec(secret) ?? [];
  const bytes = Buffer.from(text, 'base64');
  if (prefix === 'whsk_') return asymmetric(bytes);
  if (bytes.length < minKeyBytes || bytes.length > maxKeyBytes) return undefined;
  return {
    publicKey: undefined,
    sign: content => `v1,${createHmac('sha256', bytes).update(content).digest('base64')}`,
  };
}

/** The seed, with the public key behind it where it has 64 bytes. */
function asymmetric(bytes: Buffer): SigningKey | undefined {
  if (bytes.length !== seedBytes && bytes.length !== 2 * seedBytes) return undefined;
  const der = Buffer.concat([privatePrefix, bytes.subarray(0, seedBytes)]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const publicBytes = publicBytesOf(key);
  if (bytes.length > seedBytes && !bytes.subarray(seedBytes).equals(publicBytes)) return undefined;
  return {
    publicKey: `whpk_${publicBytes.toString('base64')}`,
    sign: content => `v1a,${signWith(null, Buffer.from(content), key).toString('base64')}`,
  };
}

const publicBytesOf = (key: KeyObject): Buffer =>
  createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(publicPrefixBytes);

/** The value of webhook-signature. `timestampS`: of the attempt, seconds since 1970. */
export function sign(keys: readonly SigningKey[], id: string, timestampS: number, body: string): string {
  const content = `${id}.${timestampS}.${body}`;
  return keys.map(key => key.sign(content)).join(' ');
}
