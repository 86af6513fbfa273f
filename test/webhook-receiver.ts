// A receiver of webhooks: answers as it is told, verifies signatures, and remembers what came in which order.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Received {
  readonly id: string;
  readonly path: string;
  readonly body: string;
  readonly headers: IncomingMessage['headers'];
}

/** The status, with headers where they matter; 'hang': none, ever. */
export type Answer = number | { readonly status: number; readonly headers: Record<string, string> } | 'hang';

export class Receiver {
  readonly received: Received[] = [];
  /** Called for each request, in order; 200 where it gives nothing. */
  answer: (request: Received) => Answer | undefined | Promise<Answer | undefined> = () => 200;
  readonly #server: Server;
  readonly #waiting = new Set<() => void>();

  private constructor() {
    this.#server = createServer((request, response) => void this.#take(request, response));
  }

  static async open(port = 0): Promise<Receiver> {
    const receiver = new Receiver();
    await new Promise<void>(resolve => receiver.#server.listen(port, '127.0.0.1', resolve));
    return receiver;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/hook`;
  }

  get bodies(): string[] {
    return this.received.map(({ body }) => body);
  }

  /** Resolves once what has come makes `condition` true. */
  async until(condition: (received: readonly Received[]) => boolean): Promise<void> {
    while (!condition(this.received)) await new Promise<void>(resolve => this.#waiting.add(resolve));
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise(resolve => this.#server.close(resolve));
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = '';
    request.setEncoding('utf8');
    for await (const text of request) body += text;
    const received = { id: String(request.headers['webhook-id']), path: request.url!, body, headers: request.headers };
    this.received.push(received);
    const answer = await this.answer(received);
    for (const wake of [...this.#waiting]) {
      this.#waiting.delete(wake);
      wake();
    }
    if (answer === 'hang') return;
    const { status, headers } = typeof answer === 'object' ? answer : { status: answer ?? 200, headers: {} };
    response.writeHead(status, headers).end();
  }
}

/** As a receiver verifies, with its one secret: any of the signatures may be the one. */
export function verifies({ body, headers }: Received, secret: string): boolean {
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  const content = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  const expected = Buffer.from(createHmac('sha256', key).update(content).digest('base64'));
  return String(headers['webhook-signature'])
    .split(' ')
    .some(signature => {
      const given = Buffer.from(signature.replace(/^v1,/, ''));
      return signature.startsWith('v1,') && given.length === expected.length && timingSafeEqual(given, expected);
    });
}
