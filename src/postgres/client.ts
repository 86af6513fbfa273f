// pg's client with TLS as libpq does it. pg knows TLS or none; libpq's prefer and allow go on without it, or with it,
// on the same connection where the server says so, on another where the handshake fails or pg_hba.conf wants it otherwise.
//
//   tls:    connect ─▶ SSLRequest ─▶ S ─▶ handshake ─▶ login        N or a failed handshake: plain, if that is allowed
//   plain:  connect ─▶ login                                        refused before it was asked who we are: the other
import { Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import pg from 'pg';
import { directSocket, type Receive } from '../runtime/direct-socket.ts';
import { attemptsOf, type DatabaseAddress, explainTlsError, noTls, readAddress, tlsOptions } from './tls.ts';

export type ClientOptions = Omit<pg.ClientConfig, 'connectionString' | 'ssl' | 'stream'>;

/** What pg's Connection has, and its types lack. */
interface Inner {
  stream: Socket;
  readonly _ending: boolean;
  _connecting: boolean;
  attachListeners(stream: Socket): void;
}

const sslRequest = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

class NegotiatedConnection extends pg.Connection {
  readonly #address: DatabaseAddress;
  readonly #newSocket: () => Socket;
  readonly #keepAlive: boolean;
  readonly #inner = this as unknown as Inner;
  #attempts: ('plain' | 'tls')[] = [];
  #port: string | number = 0;
  #host: string | undefined;
  /** The login has begun: what fails from now on has nothing to do with TLS. */
  #answered = false;
  /** What the server said to the first attempt. */
  #refusal: unknown;
  encrypted = false;

  constructor(address: DatabaseAddress, newSocket: () => Socket, keepAlive: boolean) {
    super({ stream: newSocket });
    this.#address = address;
    this.#newSocket = newSocket;
    this.#keepAlive = keepAlive;
  }

  /** Called once, by pg's client: with a path alone for a Unix-domain socket. */
  connect(port: string | number, host?: string): void {
    this.#port = port;
    this.#host = host;
    this.#attempts = host === undefined ? ['plain'] : attemptsOf(this.#address.tls);
    this.#inner._connecting = true;
    this.#try(this.#inner.stream);
  }

  override emit(event: string | symbol, ...values: unknown[]): boolean {
    if (!this.#answered && typeof event === 'string') {
      if (event === 'errorMessage' && this.#attempts.length > 1) {
        this.#refusal = values[0];
        this.#next();
        return true;
      }
      if (event.startsWith('authentication') || event === 'errorMessage') this.#answered = true;
    }
    return super.emit(event, ...values);
  }

  #try(socket: Socket): void {
    this.#inner.stream = socket;
    socket.setNoDelay(true);
    socket.on('error', error => this.#broken(socket, error));
    socket.on('close', () => this.#closed(socket));
    socket.once('connect', () => {
      if (this.#keepAlive) socket.setKeepAlive(true);
      if (this.#attempts[0] === 'plain') this.#ready(socket);
      else if (this.#address.tls.direct) this.#secure(socket);
      else this.#ask(socket);
    });
    if (this.#host === undefined) socket.connect(this.#port as string);
    else socket.connect(Number(this.#port), this.#host);
  }

  #ask(socket: Socket): void {
    socket.once('data', (answer: Buffer) => {
      // More than a byte is what somebody between has put there, to be taken for what comes encrypted.
      const said = answer.length === 1 ? answer.toString('latin1') : '';
      if (said === 'S') this.#secure(socket);
      else if (said === 'N') this.#withoutTls(socket);
      else this.#fail(explainTlsError(new Error('it answers otherwise'), this.#address.tls, this.#where));
    });
    socket.write(sslRequest);
  }

  /** The server offers none. */
  #withoutTls(socket: Socket): void {
    if (this.#attempts[1] === 'plain') {
      this.#attempts.shift();
      this.#ready(socket);
    } else if (this.#refusal !== undefined) {
      this.#discard(socket);
      super.emit('errorMessage', this.#refusal);
      super.emit('end');
    } else {
      this.#fail(noTls(this.#address.tls, this.#where));
    }
  }

  #secure(socket: Socket): void {
    let secured: TLSSocket;
    try {
      secured = connectTls({ socket, ...tlsOptions(this.#address.tls, this.#host!) });
    } catch (error) {
      this.#fail(error as Error);
      return;
    }
    this.#inner.stream = secured;
    const failed = (error: Error): void => {
      if (this.#inner._ending) this.#fail(error);
      else if (this.#attempts.length > 1) this.#next();
      else this.#fail(explainTlsError(error, this.#address.tls, this.#where));
    };
    secured.once('error', failed);
    secured.once('secureConnect', () => {
      secured.removeListener('error', failed);
      if (this.#address.tls.direct && secured.alpnProtocol !== 'postgresql') {
        this.#fail(explainTlsError(new Error('it does not speak PostgreSQL there'), this.#address.tls, this.#where));
        return;
      }
      secured.on('error', error => this.#broken(secured, error));
      secured.on('close', () => this.#closed(secured));
      this.encrypted = true;
      this.#ready(secured);
    });
  }

  #ready(stream: Socket): void {
    this.#inner.attachListeners(stream);
    super.emit('connect'); // pg's client sends its startup message
  }

  /** On another connection, the other way. */
  #next(): void {
    this.#attempts.shift();
    this.encrypted = false;
    this.#discard(this.#inner.stream);
    this.#try(this.#newSocket());
  }

  #discard(stream: Socket): void {
    stream.removeAllListeners();
    stream.on('error', () => {});
    stream.destroy();
  }

  #fail(error: Error): void {
    this.#discard(this.#inner.stream);
    super.emit('error', error);
    super.emit('end');
  }

  #broken(stream: Socket, error: Error & { code?: string }): void {
    if (stream !== this.#inner.stream) return; // TLS tells it
    if (this.#inner._ending && (error.code === 'ECONNRESET' || error.code === 'EPIPE')) return;
    super.emit('error', error);
  }

  #closed(stream: Socket): void {
    if (stream === this.#inner.stream) super.emit('end');
  }

  get #where(): string {
    return `${this.#host}:${this.#port}`;
  }
}

/** Throws an OperationalError, or what pg throws, for a URL that cannot be read. */
export class PostgresClient extends pg.Client {
  readonly #negotiated: NegotiatedConnection;

  constructor(databaseUrl: string, options: ClientOptions = {}, newSocket: () => Socket = () => new Socket()) {
    const address = readAddress(databaseUrl);
    const negotiated = new NegotiatedConnection(address, newSocket, options.keepAlive ?? false);
    // pg itself is told of no TLS: neither the URL's nor what it finds in PGSSLMODE.
    const config = { ...options, connectionString: address.url, ssl: false, sslnegotiation: 'postgres' } as const;
    super({ ...config, connection: negotiated } as pg.ClientConfig);
    this.#negotiated = negotiated;
  }

  /** Whether the connection has TLS. */
  get encrypted(): boolean {
    return this.#negotiated.encrypted;
  }

  get socket(): Socket {
    return (this.#negotiated as unknown as Inner).stream;
  }
}

export interface LoggedIn {
  readonly client: PostgresClient;
  /** Whether what `takeOver` hands on is overwritten by the next read. TLS reads its socket itself. */
  readonly reusesChunks: boolean;
  /** From now on `receive` gets what arrives, and pg nothing. */
  takeOver(receive: Receive): Socket;
}

/** Connects and logs in a client whose socket can be taken over afterwards, reading up to `readBytes` at once. */
export async function logIn(databaseUrl: string, options: ClientOptions, readBytes: number): Promise<LoggedIn> {
  // During login pg listens, and keeps what it gets.
  let receive: Receive | undefined;
  const newSocket = (): Socket => {
    const socket = directSocket(readBytes, chunk => {
      if (receive) receive(chunk);
      else socket.emit('data', Buffer.from(chunk));
    });
    return socket;
  };
  const client = new PostgresClient(databaseUrl, options, newSocket);
  client.on('error', () => {}); // until the handover; afterwards the socket's events are its taker's
  await client.connect();
  return {
    client,
    reusesChunks: !client.encrypted,
    takeOver(next) {
      const { socket } = client;
      for (const event of ['data', 'error', 'close', 'end']) socket.removeAllListeners(event);
      if (client.encrypted) socket.on('data', next);
      else receive = next;
      return socket;
    },
  };
}
