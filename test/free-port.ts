// Ports for what tests start, and start again after they have killed it.
import { createServer } from 'node:net';

/** Below those that systems give to sockets that connect (Linux: 32768 and up, macOS: 49152 and up). */
const lowest = 12_000;
const count = 20_000;
const given = new Set<number>();

/**
 * A port of 127.0.0.1 that is free and stays so while nobody listens on it: no socket that connects elsewhere, or that
 * tries to reach the very process that was killed, is given it as its own.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = lowest + Math.floor(Math.random() * count);
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' || error.code === 'EACCES' ? resolve(false) : reject(error),
    );
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
