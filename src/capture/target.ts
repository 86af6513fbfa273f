// The remote Kafka that a capture writes to, as its definition names it: `target`. Secrets are references (env:NAME,
// file:PATH).
import { z } from 'zod';
import type { Address, TlsOptions } from '../client/connection.ts';
import type { SaslOptions } from '../client/sasl.ts';
import { type DefinitionPlace, keyIn } from '../runtime/definition.ts';
import { dereference, isReference, type ReferenceSources } from '../runtime/references.ts';

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

export const targetSchema = z
  .strictObject({
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
    createTopics: z.boolean().default(true),
    /** Of topics that are made; -1: the cluster's default. */
    replicationFactor: z.number().int().min(-1).max(32_767).default(-1),
  })
  .readonly();

type Written = z.infer<typeof targetSchema>;

/** With its secrets. */
export interface CaptureTarget {
  readonly bootstrap: readonly Address[];
  readonly tls: TlsOptions | undefined;
  readonly sasl: SaslOptions | undefined;
  readonly createTopics: boolean;
  readonly replicationFactor: number;
}

/** Looks up what is given by reference. Throws OperationalError for a reference that leads nowhere. */
export function readTarget(
  { bootstrap, tls, sasl, createTopics, replicationFactor }: Written,
  place: DefinitionPlace,
  references: ReferenceSources = { env: process.env, cwd: process.cwd() },
): CaptureTarget {
  const read = (text: string, ...key: readonly string[]): string =>
    dereference(text, keyIn(place, 'target', ...key), references);
  const given = typeof tls === 'object' ? Object.entries(tls) : [];
  const readTls = Object.fromEntries(given.map(([key, text]) => [key, text && read(text, 'tls', key)]));
  return {
    bootstrap,
    tls: tls === false ? undefined : readTls,
    sasl: sasl && {
      ...sasl,
      username: read(sasl.username, 'sasl', 'username'),
      password: read(sasl.password, 'sasl', 'password'),
    },
    createTopics,
    replicationFactor,
  };
}
