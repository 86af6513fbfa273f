// What listeners have in common: how a port that cannot be had is told, and who can reach an address.
import { createServer } from 'node:net';
import { codeOf, messageOf, OperationalError } from './errors.ts';
import { type Address, formatAddress } from './setting-types.ts';

export type ListenerKind = 'Kafka' | 'HTTP';

export function listenError(error: unknown, kind: ListenerKind, address: Address): OperationalError {
  const where = formatAddress(address);
  const flag = `--${kind.toLowerCase()} HOST:PORT`;
  if (codeOf(error) === 'EADDRINUSE') {
    return new OperationalError(`the ${kind} port ${where} is taken`, {
      code: 'LISTEN',
      hint: `stop what listens there, or choose another with ${flag}`,
      cause: error,
    });
  }
  return new OperationalError(`cannot listen for ${kind} on ${where} (${messageOf(error)})`, {
    code: 'LISTEN',
    hint: `choose another address with ${flag}`,
    cause: error,
  });
}

/** Listens for a moment, so that a taken port is known before anything is started. */
export async function assertFree(kind: ListenerKind, address: Address): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(listenError(error, kind, address)));
    server.listen(address, () => server.close(() => resolve()));
  });
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\./.test(host);
}

/** 0.0.0.0 and ::, which name every address of the machine and so none that a client could connect to. */
export function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}
