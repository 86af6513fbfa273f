// TLS to a PostgreSQL as libpq has it (manual, "SSL Support" of libpq): the parameters of a database URL, the variables
// PGSSL… where it has none, and the files in ~/.postgresql. pg reads sslmode otherwise, and verifies other things.
import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions, SecureVersion } from 'node:tls';
import { codeOf, messageOf, OperationalError } from '../runtime/errors.ts';

const modes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof modes)[number];

const versions = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const;

export interface TlsPolicy {
  readonly mode: SslMode;
  /** TLS from the first byte, without asking for it: from PostgreSQL 17 on. */
  readonly direct: boolean;
  /** A file, or `system`. */
  readonly rootCert: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly keyPassword: string | undefined;
  readonly revoked: string | undefined;
  readonly minVersion: SecureVersion | undefined;
  readonly maxVersion: SecureVersion | undefined;
}

export interface DatabaseAddress {
  /** For pg: without what it would take for TLS. */
  readonly url: string;
  readonly tls: TlsPolicy;
}

/** The parameters that are read here, with the variables that stand for them. */
const parameters = {
  sslmode: 'PGSSLMODE',
  sslnegotiation: 'PGSSLNEGOTIATION',
  sslrootcert: 'PGSSLROOTCERT',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslcrl: 'PGSSLCRL',
  sslpassword: undefined,
  ssl_min_protocol_version: 'PGSSLMINPROTOCOLVERSION',
  ssl_max_protocol_version: 'PGSSLMAXPROTOCOLVERSION',
  ssl: undefined,
} as const;

/** Demands on the connection that would be passed over in silence. */
const unmet: Readonly<Record<string, (value: string) => boolean>> = {
  sslcrldir: () => true,
  sslcertmode: value => value !== 'allow',
  channel_binding: value => value === 'require',
  gssencmode: value => value === 'require',
  requirepeer: () => true,
  require_auth: () => true,
};

/** Takes a database URL apart. Throws an OperationalError for what cannot be meant. */
export function readAddress(databaseUrl: string, environment: NodeJS.ProcessEnv = process.env): DatabaseAddress {
  const at = databaseUrl.indexOf('?');
  const query = new URLSearchParams(at < 0 ? '' : databaseUrl.slice(at + 1));
  for (const [name, isDemand] of Object.entries(unmet)) {
    const value = query.get(name);
    if (value !== null && isDemand(value)) throw badSetting(`${name}=${value} of the database URL is not supported`);
  }
  let found = false;
  const read = (name: keyof typeof parameters): string | undefined => {
    const value = query.get(name);
    found ||= value !== null;
    query.delete(name);
    const variable = parameters[name];
    return (value ?? (variable === undefined ? null : environment[variable])) || undefined;
  };
  const ssl = read('ssl');
  if (ssl !== undefined && ssl !== 'true') throw badSetting(`ssl=${ssl} of the database URL says nothing`);
  const mode =
    oneOf('sslmode', ssl === undefined ? read('sslmode') : (read('sslmode') ?? 'require'), modes) ?? 'prefer';
  const direct = oneOf('sslnegotiation', read('sslnegotiation'), ['postgres', 'direct']) === 'direct';
  if (direct && !isStrict(mode)) {
    throw badSetting(`sslnegotiation=direct needs sslmode require, verify-ca or verify-full, not ${mode}`);
  }
  const rootCert = read('sslrootcert');
  if (rootCert === 'system' && mode !== 'verify-full') {
    throw badSetting(`sslrootcert=system needs sslmode=verify-full, not ${mode}`);
  }
  const tls: TlsPolicy = {
    mode,
    direct,
    rootCert,
    cert: read('sslcert'),
    key: read('sslkey'),
    keyPassword: read('sslpassword'),
    revoked: read('sslcrl'),
    minVersion: oneOf('ssl_min_protocol_version', read('ssl_min_protocol_version'), versions),
    maxVersion: oneOf('ssl_max_protocol_version', read('ssl_max_protocol_version'), versions),
  };
  if (!found) return { url: databaseUrl, tls };
  const rest = query.toString();
  return { url: `${databaseUrl.slice(0, at)}${rest === '' ? '' : `?${rest}`}`, tls };
}

/** Whether nothing is said to the server without TLS. */
export function isStrict(mode: SslMode): boolean {
  return mode === 'require' || mode === 'verify-ca' || mode === 'verify-full';
}

/** In the order in which they are tried; over a Unix-domain socket there is no TLS. */
export function attemptsOf({ mode }: TlsPolicy): ('plain' | 'tls')[] {
  if (mode === 'disable') return ['plain'];
  if (mode === 'allow') return ['plain', 'tls'];
  return mode === 'prefer' ? ['tls', 'plain'] : ['tls'];
}

/**
 * Reads the files, so that renewed ones are taken by the next connection. With an authority's certificate the server's
 * is verified, whatever the mode. Throws an OperationalError.
 */
export function tlsOptions(policy: TlsPolicy, host: string): ConnectionOptions {
  const { mode, rootCert, cert, key, keyPassword, revoked, minVersion, maxVersion } = policy;
  const authorities = rootCert ?? inHome('root.crt');
  if (authorities === undefined && mode.startsWith('verify')) {
    throw badSetting(
      `sslmode=${mode} needs an authority’s certificate, and there is no ${join(homedir(), '.postgresql/root.crt')}`,
      'name its file with sslrootcert, or use sslrootcert=system for the public authorities that Node.js knows',
    );
  }
  const ownCert = cert ?? inHome('postgresql.crt');
  const ownKey = key ?? (ownCert === undefined ? undefined : (inHome('postgresql.key') ?? 'postgresql.key'));
  const options: ConnectionOptions = {
    host,
    ALPNProtocols: ['postgresql'],
    rejectUnauthorized: authorities !== undefined,
  };
  if (isIP(host) === 0) options.servername = host; // RFC 6066 wants no addresses there
  if (mode !== 'verify-full') options.checkServerIdentity = () => undefined;
  if (authorities !== undefined && authorities !== 'system') options.ca = contents('sslrootcert', authorities);
  if (ownCert !== undefined && ownKey !== undefined) {
    options.cert = contents('sslcert', ownCert);
    options.key = contents('sslkey', ownKey);
    if (keyPassword !== undefined) options.passphrase = keyPassword;
  }
  if (revoked !== undefined) options.crl = contents('sslcrl', revoked);
  if (minVersion !== undefined) options.minVersion = minVersion;
  if (maxVersion !== undefined) options.maxVersion = maxVersion;
  return options;
}

/** `where`: host:port. */
export function noTls({ mode }: TlsPolicy, where: string): OperationalError {
  return unreachable(
    `the PostgreSQL at ${where} offers no TLS, and sslmode is ${mode}`,
    'turn on ssl there, or give sslmode=prefer in the database URL',
  );
}

/** What a handshake failed with, as a sentence. */
export function explainTlsError(error: Error, { mode, rootCert }: TlsPolicy, where: string): OperationalError {
  const said = messageOf(error);
  switch (codeOf(error)) {
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return unreachable(
        `the certificate of the PostgreSQL at ${where} is another host’s (${said})`,
        'connect by a name that the certificate has; sslmode=verify-ca does not look at names',
        error,
      );
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'CERT_SIGNATURE_FAILURE':
      return unreachable(
        `the certificate of the PostgreSQL at ${where} is not from an authority of ${rootCert ?? inHome('root.crt')} (${said})`,
        'name the file of its authority’s certificate with sslrootcert in the database URL',
        error,
      );
    default:
      return unreachable(
        `TLS with the PostgreSQL at ${where} failed, with sslmode ${mode} (${said})`,
        'look at the certificates on both sides',
        error,
      );
  }
}

function inHome(name: string): string | undefined {
  const path = join(homedir(), '.postgresql', name);
  return existsSync(path) ? path : undefined;
}

function contents(parameter: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw badSetting(`the file of ${parameter} cannot be read (${messageOf(cause)})`);
  }
}

function oneOf<T extends string>(name: string, value: string | undefined, known: readonly T[]): T | undefined {
  if (value === undefined) return undefined;
  const found = known.find(one => one === value);
  if (found === undefined)
    throw badSetting(`${name} of the database URL is ${value}; it is one of ${known.join(', ')}`);
  return found;
}

function badSetting(message: string, hint = 'correct the database URL'): OperationalError {
  return new OperationalError(message, { code: 'BAD_SETTING', hint });
}

function unreachable(message: string, hint: string, cause?: Error): OperationalError {
  return new OperationalError(message, { code: 'DATABASE_UNREACHABLE', hint, retriable: true, cause });
}
