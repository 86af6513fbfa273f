// Who may read what: a JSON Web Token (RFC 7519) whose `sub` is the subscriber, or a URL that somebody with the key has
// signed. Without either key everybody may, and that only this machine: the listener is on loopback then, and pages of
// other origins, or under other names of this address, are turned away.
import { createHmac, createPublicKey, timingSafeEqual } from 'node:crypto';
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey, jwtVerify } from 'jose';
import type { Logger } from 'pino';
import { messageOf, OperationalError } from '../runtime/errors.ts';
import { isLoopback } from '../runtime/listening.ts';
import { Key } from './key.ts';

export interface AccessOptions {
  /** A secret of HS256, a public key in PEM for RS256 or ES256, or a JSON Web Key Set. */
  readonly jwtKey: string | null;
  /** Where it is from; read again when it changes. */
  readonly jwtKeyFile?: string | undefined;
  readonly jwtIssuer: string | null;
  readonly jwtAudience: string | null;
  /** Signs URLs. */
  readonly urlKey: string | null;
  readonly urlKeyFile?: string | undefined;
  readonly corsOrigins: readonly string[];
  /** Where HTTP listens. */
  readonly host: string;
}

/** What a request shows. */
export interface Credentials {
  readonly authorization: string | undefined;
  readonly origin: string | undefined;
  readonly host: string | undefined;
  readonly query: Readonly<Record<string, string | undefined>>;
}

export interface Wanted {
  readonly inbox: string;
  /** Undefined: the one that the credentials name. */
  readonly subscriber: string | undefined;
}

export interface Grant {
  readonly subscriber: string;
  /** Patterns; undefined where all topics may be read. */
  readonly topics: readonly string[] | undefined;
  /** ms since the epoch. */
  readonly expiresAt: number | undefined;
}

export class AccessError extends Error {
  override name = 'AccessError';
  readonly status: 400 | 401 | 403;
  constructor(status: 400 | 401 | 403, message: string) {
    super(message);
    this.status = status;
  }
}

type Verify = (token: string) => Promise<Record<string, unknown>>;

/** RFC 7518, 3.2: a key of HS256 is as long as its digest at least. */
const leastSecretBytes = 32;
const clockToleranceS = 5;

export class Access {
  readonly #options: AccessOptions;
  readonly #jwt: Key<Verify> | undefined;
  readonly #url: Key<string> | undefined;

  /** Throws an OperationalError where a key cannot be used. */
  constructor(options: AccessOptions) {
    this.#options = options;
    const { jwtKey, jwtKeyFile, urlKey, urlKeyFile } = options;
    if (jwtKey !== null) {
      const parse = (text: string, before?: string): Verify => verifier(sameKind(text, before), options);
      this.#jwt = new Key({ setting: 'deliver.jwt.key', text: jwtKey, file: jwtKeyFile, parse });
    }
    if (urlKey !== null) {
      this.#url = new Key({ setting: 'deliver.url.key', text: urlKey, file: urlKeyFile, parse: urlKeyOf });
    }
  }

  /** Reads key files again, and tells of those that have changed. */
  async look(logger: Logger): Promise<void> {
    for (const key of [this.#jwt, this.#url]) {
      const outcome = await key?.look();
      if (outcome === 'changed')
        logger.info({ setting: key!.setting }, 'a key file has changed: its new keys are used');
      if (outcome === 'refused')
        logger.error({ setting: key!.setting, error: key!.trouble }, 'a key file cannot be used');
    }
  }

  /** Why a key file is not what is used. */
  get trouble(): string | undefined {
    return this.#jwt?.trouble ?? this.#url?.trouble;
  }

  /** Throws an OperationalError where inboxes would be open to other machines. */
  assertServable(): void {
    if (!this.required && !isLoopback(this.#options.host)) {
      throw new OperationalError(`events would be readable by everybody who reaches ${this.#options.host}`, {
        code: 'BAD_SETTING',
        hint: 'set deliver.jwt.key or deliver.url.key, or let http listen on 127.0.0.1',
      });
    }
  }

  get required(): boolean {
    return this.#jwt !== undefined || this.#url !== undefined;
  }

  /** The origin that may read the answer; undefined for none. */
  corsOrigin(origin: string | undefined): string | undefined {
    const { corsOrigins } = this.#options;
    if (origin === undefined) return undefined;
    return corsOrigins.includes(origin) || corsOrigins.includes('*') ? origin : undefined;
  }

  /** Throws an AccessError. */
  async grant(shown: Credentials, wanted: Wanted): Promise<Grant> {
    if (!this.required) return this.#grantHere(shown, wanted);
    const token = /^Bearer (.+)$/i.exec(shown.authorization ?? '')?.[1] ?? shown.query.token;
    if (token !== undefined && this.#jwt !== undefined) return this.#grantToken(await this.#jwt.value(token), wanted);
    if (shown.query.signature !== undefined && this.#url !== undefined) {
      return this.#grantUrl(shown, wanted, this.#url.value);
    }
    throw new AccessError(401, 'give a token: Authorization: Bearer …, or ?token=…; or a signed URL');
  }

  #grantHere({ origin, host }: Credentials, { subscriber }: Wanted): Grant {
    // A name that somebody else has pointed at this address is how a page of theirs would reach it.
    const name = (host ?? '').replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
    if (!isLoopback(name)) throw new AccessError(403, 'without keys only localhost is served');
    if (
      origin !== undefined &&
      origin !== `http://${host}` &&
      origin !== `https://${host}` &&
      this.corsOrigin(origin) === undefined
    ) {
      throw new AccessError(403, `pages of ${origin} may not read this; deliver.cors.origins lists those that may`);
    }
    if (subscriber === undefined) throw new AccessError(400, 'say for whom: ?subscriber=…');
    return { subscriber, topics: undefined, expiresAt: undefined };
  }

  #grantToken(claims: Record<string, unknown>, { inbox, subscriber }: Wanted): Grant {
    const { sub, exp } = claims;
    if (typeof sub !== 'string' || sub === '') throw new AccessError(403, 'the token names no subscriber (sub)');
    if (subscriber !== undefined && subscriber !== sub) {
      throw new AccessError(403, 'the token is another subscriber’s');
    }
    const inboxes = listOf(claims.inboxes, 'inboxes');
    if (inboxes !== undefined && !inboxes.includes(inbox)) throw new AccessError(403, 'the token is for other inboxes');
    return {
      subscriber: sub,
      topics: listOf(claims.topics, 'topics'),
      expiresAt: typeof exp === 'number' ? exp * 1000 : undefined,
    };
  }

  #grantUrl({ query }: Credentials, { inbox, subscriber }: Wanted, key: string): Grant {
    const { signature = '', expires = '', allow } = query;
    if (subscriber === undefined || !/^\d{1,12}$/.test(expires)) {
      throw new AccessError(401, 'a signed URL has subscriber, expires (seconds) and signature');
    }
    const expected = signUrl(key, { inbox, subscriber, expires, allow });
    const given = Buffer.from(signature, 'hex');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      throw new AccessError(401, 'the signature is not that of this inbox, subscriber, time and topics');
    }
    const expiresAt = Number(expires) * 1000;
    if (expiresAt <= Date.now()) throw new AccessError(401, 'the URL has expired');
    return { subscriber, topics: allow === undefined ? undefined : allow.split(','), expiresAt };
  }
}

export interface SignedParts {
  readonly inbox: string;
  readonly subscriber: string;
  /** Seconds since the epoch. */
  readonly expires: string;
  /** Patterns of topics, separated by commas; all where there is none. */
  readonly allow: string | undefined;
}

/** HMAC-SHA256 over the parts as a JSON list, so that none can be read as another. */
export function signUrl(key: string, { inbox, subscriber, expires, allow }: SignedParts): Buffer {
  return createHmac('sha256', key)
    .update(JSON.stringify([inbox, subscriber, expires, allow ?? null]))
    .digest();
}

function listOf(claim: unknown, name: string): string[] | undefined {
  if (claim === undefined) return undefined;
  if (Array.isArray(claim) && claim.every(entry => typeof entry === 'string')) return claim;
  throw new AccessError(403, `the token’s ${name} are not a list of names`);
}

const kindOf = (key: string): 'key set' | 'public key' | 'secret' =>
  key.trimStart().startsWith('{') ? 'key set' : key.includes('-----BEGIN') ? 'public key' : 'secret';

/** Any text of some length would do as a secret, also one that has come to be in the place of a public key. */
function sameKind(key: string, before: string | undefined): string {
  if (before === undefined || kindOf(key) === kindOf(before)) return key;
  throw badKey('deliver.jwt.key', `it was a ${kindOf(before)} and is a ${kindOf(key)}, which takes a restart`);
}

function urlKeyOf(key: string): string {
  if (Buffer.byteLength(key) >= leastSecretBytes) return key;
  throw badKey('deliver.url.key', `it is shorter than ${leastSecretBytes} bytes`);
}

/** The kind of key decides the algorithms, never the token. */
function verifier(key: string, { jwtIssuer, jwtAudience }: AccessOptions): Verify {
  const checks = {
    clockTolerance: clockToleranceS,
    ...(jwtIssuer === null ? {} : { issuer: jwtIssuer }),
    ...(jwtAudience === null ? {} : { audience: jwtAudience }),
  };
  const check = async (verified: Promise<{ payload: Record<string, unknown> }>): Promise<Record<string, unknown>> => {
    try {
      return (await verified).payload;
    } catch (error) {
      if (error instanceof errors.JWTExpired) throw new AccessError(401, 'the token has expired');
      if (error instanceof errors.JOSEError) throw new AccessError(401, `the token is not valid (${error.message})`);
      throw new AccessError(401, 'the token is not valid');
    }
  };
  const kind = kindOf(key);
  if (kind === 'key set') {
    const set = keySet(key);
    return token => check(jwtVerify(token, set, { ...checks, algorithms: ['RS256', 'ES256'] }));
  }
  if (kind === 'public key') {
    const [publicKey, algorithm] = publicKeyOf(key);
    return token => check(jwtVerify(token, publicKey, { ...checks, algorithms: [algorithm] }));
  }
  const secret = Buffer.from(key);
  if (secret.length < leastSecretBytes) {
    throw badKey('deliver.jwt.key', `a secret of HS256 has ${leastSecretBytes} bytes at least`);
  }
  return token => check(jwtVerify(token, secret, { ...checks, algorithms: ['HS256'] }));
}

function keySet(text: string): JWTVerifyGetKey {
  let set: JSONWebKeySet;
  let find: JWTVerifyGetKey;
  try {
    set = JSON.parse(text);
    find = createLocalJWKSet(set);
  } catch (error) {
    throw badKey('deliver.jwt.key', `it is no JSON Web Key Set (${messageOf(error)})`);
  }
  if (set.keys.length === 0) throw badKey('deliver.jwt.key', 'the key set is empty');
  return find;
}

function publicKeyOf(pem: string) {
  let key: ReturnType<typeof createPublicKey>;
  try {
    key = createPublicKey(pem);
  } catch (error) {
    throw badKey('deliver.jwt.key', `the PEM cannot be read (${messageOf(error)})`);
  }
  if (key.asymmetricKeyType === 'rsa') return [key, 'RS256'] as const;
  if (key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1') {
    return [key, 'ES256'] as const;
  }
  throw badKey('deliver.jwt.key', 'it is neither an RSA key nor one on the curve P-256');
}

function badKey(setting: string, message: string): OperationalError {
  return new OperationalError(`${setting} cannot be used: ${message}`, {
    code: 'BAD_SETTING',
    hint: 'docs/delivery.md says what it may be',
  });
}
