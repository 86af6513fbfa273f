// A client that is nothing but a socket and the codec: it sends any request, any bytes, and waits for what comes.
import { connect, type Socket } from 'node:net';
import { readResponse } from '../../src/protocol/compile.ts';
import { FrameReader } from '../../src/protocol/frame.ts';
import { readResponseHeader, requestFrame } from '../../src/protocol/header.ts';
import type { Api, ReceivedResponse, RequestToSend } from '../../src/protocol/schema.ts';

export class ClosedError extends Error {
  override name = 'ClosedError';
}

interface Waiting {
  resolve(frame: Buffer): void;
  reject(error: Error): void;
}

export class WireClient {
  readonly socket: Socket;
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #waiting: Waiting[] = [];
  readonly #frames = new FrameReader({ maxBytes: 2 ** 31 - 1 });
  #correlationId = 0;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise(resolve => {
      socket.once('close', () => {
        for (const waiting of this.#waiting.splice(0)) waiting.reject(new ClosedError('the connection was closed'));
        resolve();
      });
    });
    socket.on('error', () => {}); // 'close' follows
    socket.on('data', chunk => {
      for (const frame of this.#frames.push(chunk)) this.#waiting.shift()?.resolve(frame);
    });
  }

  static async connect(port: number): Promise<WireClient> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new WireClient(socket);
  }

  /** Requests may be pipelined; answers are taken in order. Rejects with ClosedError when the connection ends first. */
  async request<A extends Api>(api: A, version: number, body: RequestToSend<A>): Promise<ReceivedResponse<A>> {
    const id = ++this.#correlationId;
    const answer = this.answer();
    this.socket.cork();
    for (const chunk of requestFrame(api, version, id, 'faults', body)) this.socket.write(chunk);
    this.socket.uncork();
    const frame = await answer;
    const { correlationId, bodyAt } = readResponseHeader(api, version, frame);
    if (correlationId !== id) throw new Error(`answer ${correlationId} to request ${id}`);
    return readResponse(api, version, frame, bodyAt);
  }

  /** The next frame that comes and nobody before has asked for. */
  answer(): Promise<Buffer> {
    if (this.socket.destroyed) return Promise.reject(new ClosedError('the connection was closed'));
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Any bytes; resolves when the kernel has them, or the connection is gone. */
  send(bytes: Buffer): Promise<void> {
    return new Promise(resolve => this.socket.write(bytes, () => resolve()));
  }

  close(): void {
    this.socket.destroy();
  }
}

/** A request as it goes over the wire, size included. */
export function frameOf<A extends Api>(api: A, version: number, body: RequestToSend<A>, correlationId = 1): Buffer {
  return Buffer.concat(requestFrame(api, version, correlationId, 'faults', body));
}
