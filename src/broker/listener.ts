// The Kafka listeners: accept up to a bound of connections, hand each its budget and dispatcher, drain at the end.
import { createServer, type Server, type Socket } from 'node:net';
import type { Logger } from 'pino';
import { codeOf, OperationalError } from '../runtime/errors.ts';
import { Connection, type ConnectionOptions } from './connection.ts';

export interface ListenerOptions extends Omit<ConnectionOptions, 'onClosed'> {
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  readonly maxConnections: number;
  readonly logConnections: boolean;
  readonly logger: Logger;
}

export class Listener {
  readonly #options: ListenerOptions;
  readonly #servers: Server[] = [];
  readonly #connections = new Set<Connection>();
  #whenEmpty: (() => void) | undefined;

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** The addresses listened on, with the ports that were taken. */
  get addresses(): { host: string; port: number }[] {
    return this.#servers.map((server, i) => {
      const bound = server.address();
      const port = typeof bound === 'object' && bound ? bound.port : 0;
      return { host: this.#options.addresses[i]!.host, port };
    });
  }

  async start(): Promise<void> {
    for (const { host, port } of this.#options.addresses) {
      const server = createServer({ noDelay: true, pauseOnConnect: true }, socket => this.#accept(socket));
      this.#servers.push(server);
      await new Promise<void>((resolve, reject) => {
        server.once('error', error => reject(listenError(error, host, port)));
        server.listen({ host, port, backlog: 1024 }, resolve);
      });
      // Later: no file descriptors are left, for one. Who is connected goes on; others try again.
      server.on('error', error => this.#options.logger.error({ err: error }, 'a connection could not be accepted'));
    }
  }

  /** Accepts no more and waits until every connection has its answers. */
  async drain(): Promise<void> {
    const closed = this.#servers.map(server => new Promise<void>(resolve => server.close(() => resolve())));
    for (const connection of this.#connections) connection.drain();
    if (this.#connections.size > 0) {
      await new Promise<void>(resolve => {
        this.#whenEmpty = resolve;
      });
    }
    await Promise.all(closed);
  }

  /** Cuts what is left. */
  abandon(): void {
    for (const server of this.#servers) server.close();
    for (const connection of this.#connections) connection.close('shutting down');
  }

  #accept(socket: Socket): void {
    const { maxConnections, logConnections, logger } = this.#options;
    const client = `${socket.remoteAddress}:${socket.remotePort}`;
    if (this.#connections.size >= maxConnections) {
      logger.warn({ client, maxConnections }, 'too many connections; one is refused');
      socket.destroy();
      return;
    }
    if (logConnections) logger.info({ client }, 'connection opened');
    const connection = new Connection(socket, {
      ...this.#options,
      onClosed: reason => {
        this.#connections.delete(connection);
        if (logConnections) logger.info({ client, reason }, 'connection closed');
        if (this.#connections.size === 0) this.#whenEmpty?.();
      },
    });
    this.#connections.add(connection);
  }
}

function listenError(error: Error, host: string, port: number): OperationalError {
  const taken = codeOf(error) === 'EADDRINUSE';
  return new OperationalError(
    taken ? `the Kafka port ${host}:${port} is taken` : `cannot listen on ${host}:${port}: ${error.message}`,
    {
      code: 'LISTEN',
      hint: taken
        ? 'stop what listens there, or choose another with --kafka HOST:PORT'
        : 'choose another address with --kafka HOST:PORT',
      cause: error,
    },
  );
}
