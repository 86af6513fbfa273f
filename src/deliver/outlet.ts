// Where a connection's text goes: an answer over HTTP/1.1 or HTTP/2 as it is, or compressed by gzip (RFC 1952) so that each
// write reaches the client at once.
import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { constants, createGzip, type Gzip } from 'node:zlib';

/** Emits `drain` when it takes more after a write that gave false, and `close` once. */
export interface Outlet {
  /** Bytes that the client has not taken. */
  readonly waiting: number;
  /** False: it takes no more for now. `done` is called when everything so far has gone to the operating system. */
  write(text: string, done?: (error?: Error | null) => void): boolean;
  end(): void;
  destroy(): void;
  on(event: 'drain' | 'close', listener: () => void): unknown;
}

export class PlainOutlet implements Outlet {
  readonly #response: Writable;

  constructor(response: Writable) {
    this.#response = response;
    response.on('error', () => {}); // `close` follows
  }

  get waiting(): number {
    return this.#response.writableLength;
  }

  write(text: string, done?: (error?: Error | null) => void): boolean {
    return this.#response.write(text, done);
  }

  end(): void {
    this.#response.end();
  }

  destroy(): void {
    this.#response.destroy();
  }

  on(event: 'drain' | 'close', listener: () => void): void {
    this.#response.on(event, listener);
  }
}

/**
 * An answer over HTTP/1.1 whose head has been sent: each write is a chunk (RFC 9112, 7.1) in one string for the socket, which takes half
 * of the time that ServerResponse takes for it. To be ended by the answer, which adds the last chunk.
 */
export class ChunkedOutlet implements Outlet {
  readonly #response: ServerResponse;
  readonly #socket: Socket;

  constructor(response: ServerResponse, socket: Socket) {
    this.#response = response;
    this.#socket = socket;
    response.on('error', () => {}); // `close` follows
  }

  get waiting(): number {
    return this.#socket.writableLength;
  }

  /** `text` is not empty: that chunk would be the last. */
  write(text: string, done?: (error?: Error | null) => void): boolean {
    return this.#socket.write(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`, done);
  }

  end(): void {
    this.#response.end();
  }

  destroy(): void {
    this.#response.destroy();
  }

  on(event: 'drain' | 'close', listener: () => void): void {
    if (event === 'close') {
      this.#response.on('close', listener);
      return;
    }
    // The socket may have another answer after this one.
    this.#socket.on('drain', listener);
    this.#response.once('close', () => this.#socket.off('drain', listener));
  }
}

/**
 * A window of 2 KiB and 4 KiB of hash tables: events of one subscriber resemble the few before them, and there may be
 * thousands of connections.
 */
const smallest = { level: 4, windowBits: 11, memLevel: 3, chunkSize: 4096 };
const maxCompressing = 16 * 1024;

export class GzipOutlet extends EventEmitter implements Outlet {
  readonly #response: Writable;
  readonly #gzip: Gzip = createGzip(smallest);
  #chunks: Buffer[] = [];
  /** Characters that are being compressed. */
  #compressing = 0;
  /** The answer takes no more. */
  #blocked = false;
  /** This has said that it takes no more. */
  #full = false;

  constructor(response: Writable) {
    super();
    this.#response = response;
    response.on('error', () => {});
    response.on('drain', () => {
      this.#blocked = false;
      this.#drain();
    });
    response.on('close', () => {
      this.#gzip.destroy();
      this.emit('close');
    });
    this.#gzip.on('data', (chunk: Buffer) => this.#chunks.push(chunk));
    this.#gzip.on('error', () => this.destroy());
  }

  get waiting(): number {
    return this.#compressing + this.#response.writableLength;
  }

  write(text: string, done?: (error?: Error | null) => void): boolean {
    this.#compressing += text.length;
    this.#gzip.write(text);
    this.#gzip.flush(constants.Z_SYNC_FLUSH, () => {
      this.#compressing -= text.length;
      const chunk = Buffer.concat(this.#chunks);
      this.#chunks = [];
      // An empty one still tells when what went before has gone.
      this.#blocked = !this.#response.write(chunk, done);
      this.#drain();
    });
    if (!this.#takesMore()) this.#full = true;
    return !this.#full;
  }

  end(): void {
    this.#gzip.end();
    this.#gzip.once('end', () => this.#response.end(Buffer.concat(this.#chunks)));
  }

  destroy(): void {
    this.#response.destroy();
  }

  #takesMore(): boolean {
    return this.#compressing < maxCompressing && !this.#blocked;
  }

  #drain(): void {
    if (!this.#full || !this.#takesMore()) return;
    this.#full = false;
    this.emit('drain');
  }
}

/** Whether an Accept-Encoding (RFC 9110, 12.5.3) takes gzip. */
export function takesGzip(accepted: string | undefined): boolean {
  if (accepted === undefined) return false;
  const weights = new Map<string, number>();
  for (const part of accepted.toLowerCase().split(',')) {
    const [coding = '', ...parameters] = part.split(';').map(text => text.trim());
    const weight = parameters.find(text => text.startsWith('q='))?.slice(2);
    weights.set(coding, weight === undefined ? 1 : Number(weight));
  }
  return (weights.get('gzip') ?? weights.get('x-gzip') ?? weights.get('*') ?? 0) > 0;
}
