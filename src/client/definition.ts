// How definitions name a remote Kafka: where it is, and how to log in. Secrets are references (env:NAME, file:PATH).
import { z } from 'zod';
import { type DefinitionPlace, keyIn } from '../runtime/definition.ts';
import { dereference, isReference, type ReferenceSources } from '../runtime/references.ts';
import type { Address, TlsOptions } from './connection.ts';
import type { SaslOptions } from './sasl.ts';

const address = z
  .string()
  .regex(/^(\[[^\]]+\]|[^:\s]+):\d{1,5}$/, 'host:port')
  .transform((text): Address => {
    const colon = text.lastIndexOf(':');
    return { host: text.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(text.slice(colon + 1)) };
  });
const secret = z.string().refine(isReference, 'env:NAME or file:PATH');
const certificate = z
  .string()
  .refine(
    text => isReference(text) || text.includes('-----BEGIN CERTIFICATE-----'),
    'env:NAME, file:PATH, or a certificate in PEM',
  );

/** Keys of a strict object, to which each feature adds its own. */
export const remoteKeys = {
  bootstrap: z
    .union([z.string(), z.array(z.string())])
    .transform(given => (typeof given === 'string' ? given.split(',') : given).map(text => text.trim()))
    .pipe(z.array(address).min(1)),
  tls: z
    .union([
      z.boolean(),
      z.strictObject({
        ca: certificate.optional(),
        cert: certificate.optional(),
        key: secret.optional(),
        passphrase: secret.optional(),
        servername: z.string().optional(),
        verify: z.enum(['full', 'ca', 'none']).optional(),
      }),
    ])
    .default(false),
  sasl: z
    .strictObject({
      mechanism: z.enum(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']),
      username: z.string(),
      password: secret,
    })
    .optional(),
};

const remote = z.strictObject(remoteKeys);

/** With its secrets. */
export interface Remote {
  readonly bootstrap: readonly Address[];
  readonly tls: TlsOptions | undefined;
  readonly sasl: SaslOptions | undefined;
}

/** Looks up what is given by reference, under `key` of the definition. Throws OperationalError for one that leads nowhere. */
export function readRemote(
  { bootstrap, tls, sasl }: z.infer<typeof remote>,
  key: string,
  place: DefinitionPlace,
  references: ReferenceSources = { env: process.env, cwd: process.cwd() },
): Remote {
  const read = (text: string, ...more: readonly string[]): string =>
    dereference(text, keyIn(place, key, ...more), references);
  const given = typeof tls === 'object' ? Object.entries(tls) : [];
  const readTls = Object.fromEntries(given.map(([name, text]) => [name, text && read(text, 'tls', name)]));
  return {
    bootstrap,
    tls: tls === false ? undefined : readTls,
    sasl: sasl && {
      ...sasl,
      username: read(sasl.username, 'sasl', 'username'),
      password: read(sasl.password, 'sasl', 'password'),
    },
  };
}
