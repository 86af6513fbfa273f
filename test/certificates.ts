// An authority, what it has signed, and a stranger to it: made by openssl for one test run.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Paths of PEM files. */
export interface Certificates {
  readonly authority: string;
  /** Another authority, which has signed nothing here. */
  readonly stranger: string;
  /** For the names given. */
  readonly server: KeyPair;
  /** Of the role given. */
  readonly client: KeyPair;
}

export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** Why there can be none, or false. */
export function cannotMakeCertificates(): string | false {
  try {
    execFileSync('openssl', ['version'], { stdio: 'pipe' });
    return false;
  } catch {
    return 'there is no openssl to make certificates with';
  }
}

/** `names` as openssl writes them: DNS:localhost. */
export function makeCertificates(directory: string, names: readonly string[], role: string): Certificates {
  const path = (name: string): string => join(directory, name);
  const openssl = (...parameters: string[]): void => {
    execFileSync('openssl', parameters, { cwd: directory, stdio: 'pipe' });
  };
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const authority = (name: string): string => {
    openssl('req', '-x509', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.crt`, '-subj', `/CN=${name}`);
    return path(`${name}.crt`);
  };
  const signed = (name: string, commonName: string, extensions: string): KeyPair => {
    writeFileSync(path(`${name}.ext`), extensions);
    openssl('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${commonName}`);
    const by = ['-CA', 'authority.crt', '-CAkey', 'authority.key', '-CAcreateserial'];
    openssl('x509', '-req', '-in', `${name}.csr`, ...by, '-extfile', `${name}.ext`, '-out', `${name}.crt`);
    return { cert: path(`${name}.crt`), key: path(`${name}.key`) };
  };
  return {
    authority: authority('authority'),
    stranger: authority('stranger'),
    server: signed('server', 'server', `subjectAltName=${names.join(',')}\n`),
    client: signed('client', role, 'extendedKeyUsage=clientAuth\n'),
  };
}
