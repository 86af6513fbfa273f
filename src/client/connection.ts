// One connection to one broker: TCP or TLS, versions negotiated, logged in, then requests whose answers come in their
// order. What a broker sends is as untrusted as what a client sends to ours: sizes, counts and correlation ids are
// checked, and a broken stream ends the connection. What is in flight is bounded; further requests wait their turn.
import type { Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions as NodeTlsOptions } from 'node:tls';
import { readResponse } from '../protocol/compile.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { FrameReader } from '../protocol/frame.ts';
import { readResponseHeader, requestFrame } from '../protocol/header.ts';
import { ApiVersions } from '../protocol/messages/18-api-versions.ts';
import type { Api, ReceivedResponse, RequestToSend } from '../protocol/schema.ts';
import { maxRequestElements } from '../protocol/wire.ts';
import { directSocket } from '../runtime/direct-socket.ts';
import { version as ownVersion } from '../runtime/version.ts';
import { ClientError, IncompatibleError, UnreachableError } from './errors.ts';
import { authenticate, type SaslOptions } from './sasl.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface TlsOptions {
  /** PEM; the system's authorities where there is none. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly passphrase?: string;
  /** Instead of the host, for brokers behind another name. */
  readonly servername?: string;
  /** full: authority and name; ca: the authority only; none: neither, which anybody on the way can use. */
  readonly verify?: 'full' | 'ca' | 'none';
}

export interface ConnectionOptions {
  readonly clientId: string;
  readonly tls?: TlsOptions | undefined;
  readonly sasl?: SaslOptions | undefined;
  /** Until it is logged in. */
  readonly connectTimeoutMs?: number;
  /** Without an answer for so long, the connection is given up. */
  readonly requestTimeoutMs?: number;
  readonly maxInFlight?: number;
  readonly maxResponseBytes?: number;
}

export interface RequestOptions {
  /** Versions that the caller can speak, within those of the declaration. */
  readonly least?: number;
  readonly most?: number;
  /** Instead of the connection's, for requests that wait at the broker. */
  readonly timeoutMs?: number;
}

export type Request = <A extends Api>(
  api: A,
  body: RequestToSend<A>,
  options?: RequestOptions,
) => Promise<ReceivedResponse<A>>;

interface Waiting {
  readonly api: Api;
  readonly version: number;
  readonly correlationId: number;
  readonly timer: NodeJS.Timeout;
  resolve(frame: Buffer): void;
  reject(error: Error): void;
}

const readBytes = 262_144;
const defaults = {
  connectTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  maxInFlight: 5,
  maxResponseBytes: 128 * 2 ** 20,
};
/** Of a login's lifetime: then a connection of its own age is made instead (KIP-368). */
const lifetimeShare = 0.85;

export class Connection {
  readonly address: Address;
  readonly #options: Required<Omit<ConnectionOptions, 'tls' | 'sasl'>>;
  readonly #frames: FrameReader;
  readonly #waiting: Waiting[] = [];
  readonly #turns: (() => void)[] = [];
  /** Resolves once it has ended, with why. */
  readonly ended: Promise<Error>;
  #tellEnd: (error: Error) => void = () => {};
  #socket: Socket | undefined;
  #correlationId = 0;
  #error: Error | undefined;
  #versions: ReadonlyMap<number, readonly [number, number]> = new Map();
  #retireAt = Number.POSITIVE_INFINITY;

  private constructor(address: Address, { tls: _tls, sasl: _sasl, ...options }: ConnectionOptions) {
    this.address = address;
    this.#options = { ...defaults, ...options };
    this.#frames = new FrameReader({ maxBytes: this.#options.maxResponseBytes });
    this.ended = new Promise(resolve => {
      this.#tellEnd = resolve;
    });
  }

  /** Rejects with a ClientError. */
  static async open(address: Address, options: ConnectionOptions): Promise<Connection> {
    const connection = new Connection(address, options);
    const { connectTimeoutMs } = connection.#options;
    const timer = setTimeout(
      () => connection.#end(new UnreachableError(`${connection} took longer than ${connectTimeoutMs} ms to connect`)),
      connectTimeoutMs,
    );
    try {
      await connection.#connect(options.tls);
      connection.#versions = await connection.#negotiate();
      if (options.sasl) {
        const lifetimeMs = await authenticate(connection.request, options.sasl);
        if (lifetimeMs > 0) connection.#retireAt = Date.now() + lifetimeMs * lifetimeShare;
      }
      return connection;
    } catch (error) {
      connection.#end(error as Error);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  toString(): string {
    return `${this.address.host}:${this.address.port}`;
  }

  get isOpen(): boolean {
    return this.#error === undefined;
  }

  /** Its login is about to expire: nothing new is to be asked on it. */
  get isRetired(): boolean {
    return Date.now() >= this.#retireAt;
  }

  get inFlight(): number {
    return this.#waiting.length;
  }

  /** The version that both sides speak; undefined: none. */
  versionOf(api: Api, { least = 0, most = Number.POSITIVE_INFINITY }: RequestOptions = {}): number | undefined {
    const [from, to] = this.#versions.get(api.key) ?? [0, -1];
    const version = Math.min(to, api.versions[1], most);
    return version >= Math.max(from, api.versions[0], least) ? version : undefined;
  }

  /** Rejects with a ClientError; with UnreachableError, what was asked may have been done. */
  readonly request: Request = async (api, body, options = {}) => {
    const version = this.versionOf(api, options);
    if (version === undefined) throw new IncompatibleError(`${this} does not serve ${api.name} as it is needed`);
    while (this.#error === undefined && this.#waiting.length >= this.#options.maxInFlight) {
      await new Promise<void>(resolve => this.#turns.push(resolve));
    }
    return this.#send(api, version, body, options.timeoutMs);
  };

  close(): void {
    this.#end(new UnreachableError(`${this}: the connection was closed here`));
  }

  async #connect(tls: TlsOptions | undefined): Promise<void> {
    const receive = (chunk: Buffer) => this.#receive(chunk);
    const socket = tls
      ? connectTls({ ...this.address, ...nodeTls(tls) }).on('data', receive)
      : directSocket(readBytes, receive).connect({ ...this.address, noDelay: true });
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 30_000);
    socket.on('error', error => this.#end(new UnreachableError(`${this}: ${error.message}`, { cause: error })));
    socket.on('close', () => this.#end(new UnreachableError(`${this} closed the connection`)));
    await Promise.race([
      new Promise(resolve => socket.once(tls ? 'secureConnect' : 'connect', resolve)),
      this.ended.then(error => Promise.reject(error)),
    ]);
  }

  /** A broker too old for the version asked in says so in version 0 (KIP-511). */
  async #negotiate(): Promise<ReadonlyMap<number, readonly [number, number]>> {
    const body = { clientSoftwareName: 'millrace', clientSoftwareVersion: ownVersion };
    let answer = await this.#send(ApiVersions, 3, body);
    if (answer.errorCode === ErrorCode.UNSUPPORTED_VERSION) answer = await this.#send(ApiVersions, 0, body);
    if (answer.errorCode !== ErrorCode.NONE) throw new IncompatibleError(`${this} does not tell its versions`);
    return new Map(answer.apiKeys.map(({ apiKey, minVersion, maxVersion }) => [apiKey, [minVersion, maxVersion]]));
  }

  async #send<A extends Api>(
    api: A,
    version: number,
    body: RequestToSend<A>,
    timeoutMs = this.#options.requestTimeoutMs,
  ): Promise<ReceivedResponse<A>> {
    if (this.#error) throw this.#error;
    const socket = this.#socket!;
    const correlationId = this.#correlationId;
    this.#correlationId = (correlationId + 1) & 0x7fff_ffff;
    const chunks = requestFrame(api, version, correlationId, this.#options.clientId, body);
    const frame = await new Promise<Buffer>((resolve, reject) => {
      const timer = setTimeout(
        () => this.#end(new UnreachableError(`${this} did not answer ${api.name} within ${timeoutMs} ms`)),
        timeoutMs,
      );
      this.#waiting.push({ api, version, correlationId, timer, resolve, reject });
      socket.cork();
      for (const chunk of chunks) socket.write(chunk);
      socket.uncork();
    });
    try {
      const { bodyAt } = readResponseHeader(api, version, frame);
      const read =
        api.key === ApiVersions.key && frame.readInt16BE(bodyAt) === ErrorCode.UNSUPPORTED_VERSION ? 0 : version;
      return readResponse(api, read, frame, bodyAt, maxRequestElements);
    } catch (error) {
      throw this.#end(new UnreachableError(`${this} answered ${api.name} with what cannot be read`, { cause: error }));
    }
  }

  #receive(chunk: Buffer): void {
    const frames: Buffer[] = [];
    let broken: unknown;
    try {
      this.#frames.push(chunk, frames);
    } catch (error) {
      broken = error;
    }
    for (const frame of frames) {
      const waiting = this.#waiting[0];
      if (waiting === undefined || frame.length < 4 || frame.readInt32BE(0) !== waiting.correlationId) {
        broken = new Error('an answer that was not asked for');
        break;
      }
      this.#waiting.shift();
      clearTimeout(waiting.timer);
      waiting.resolve(frame);
      this.#turns.shift()?.();
    }
    if (broken) this.#end(new UnreachableError(`${this}: ${(broken as Error).message}`, { cause: broken }));
  }

  #end(error: Error): Error {
    if (this.#error) return this.#error;
    this.#error = error;
    this.#socket?.destroy();
    for (const waiting of this.#waiting.splice(0)) {
      clearTimeout(waiting.timer);
      waiting.reject(error instanceof ClientError ? error : new UnreachableError(error.message, { cause: error }));
    }
    for (const turn of this.#turns.splice(0)) turn();
    this.#tellEnd(error);
    return error;
  }
}

function nodeTls({ verify = 'full', ...given }: TlsOptions): NodeTlsOptions {
  return {
    ...given,
    rejectUnauthorized: verify !== 'none',
    ...(verify === 'ca' ? { checkServerIdentity: () => undefined } : {}),
  };
}
