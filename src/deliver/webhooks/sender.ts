// One attempt: a POST with the headers of Standard Webhooks, and what its answer means. The name is resolved once for a
// connection and every address looked at before it is connected to; redirects are answers like any other.
import { lookup as systemLookup } from 'node:dns';
import { type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import { codeOf, messageOf } from '../../runtime/errors.ts';
import { version } from '../../runtime/version.ts';
import type { AddressRule } from './addresses.ts';
import { type SigningKey, sign } from './signature.ts';

export interface Message {
  readonly id: string;
  readonly body: string;
  /** Beside those of the specification. */
  readonly headers: Readonly<Record<string, string>>;
}

export type Outcome =
  | { readonly kind: 'delivered' }
  /** 410: the receiver wants nothing any more. */
  | { readonly kind: 'gone'; readonly code: string; readonly reason: string }
  /** 429: nothing is wrong with the event. */
  | { readonly kind: 'throttled'; readonly code: string; readonly reason: string; readonly retryAfterMs?: number }
  | { readonly kind: 'failed'; readonly code: string; readonly reason: string; readonly retryAfterMs?: number };

export interface SenderOptions {
  readonly mayAsk: AddressRule;
  /** Connections kept open for the next request, in all. */
  readonly maxIdle: number;
  /** The system's, where there is none. */
  readonly lookup?: typeof systemLookup;
}

class RefusedAddress extends Error {}

/** An answer's body is nobody's concern; so much of it is taken to keep the connection. */
const maxAnswerBytes = 64 * 1024;
const maxRetryAfterMs = 24 * 3_600_000;

export class Sender {
  readonly #mayAsk: AddressRule;
  readonly #lookup: LookupFunction;
  readonly #http: HttpAgent;
  readonly #https: HttpsAgent;

  constructor({ mayAsk, maxIdle, lookup = systemLookup }: SenderOptions) {
    this.#mayAsk = mayAsk;
    const agent = { keepAlive: true, maxFreeSockets: maxIdle, maxTotalSockets: Number.POSITIVE_INFINITY };
    this.#http = new HttpAgent(agent);
    this.#https = new HttpsAgent(agent);
    this.#lookup = (hostname, options, callback) => {
      lookup(hostname, { ...options, all: true }, (error, found) => {
        if (error) return callback(error, '');
        // One bad address is enough: what answers differently each time is not to be trusted.
        const refused = found.find(({ address }) => !mayAsk(address));
        if (refused) return callback(new RefusedAddress(`${hostname} is ${refused.address}`), '');
        if (options.all) return callback(null, found);
        callback(null, found[0]!.address, found[0]!.family);
      });
    };
  }

  /** Never rejects. Over after `timeoutMs` at the latest, whatever the receiver does. */
  async send(url: string, keys: readonly SigningKey[], message: Message, timeoutMs: number): Promise<Outcome> {
    const { hostname, protocol } = new URL(url);
    const literal = hostname.replace(/^\[(.*)\]$/, '$1');
    if (isIP(literal) !== 0 && !this.#mayAsk(literal)) return refused(literal);
    const timestampS = Math.floor(Date.now() / 1000);
    const headers = {
      ...message.headers,
      'user-agent': `millrace/${version}`,
      'content-length': Buffer.byteLength(message.body),
      'webhook-id': message.id,
      'webhook-timestamp': timestampS,
      'webhook-signature': sign(keys, message.id, timestampS, message.body),
    };
    return new Promise(resolve => {
      const options = { method: 'POST', headers, lookup: this.#lookup };
      let sent: ClientRequest;
      try {
        sent =
          protocol === 'https:'
            ? httpsRequest(url, { ...options, agent: this.#https })
            : httpRequest(url, { ...options, agent: this.#http });
      } catch (error) {
        resolve({ kind: 'failed', code: 'REQUEST', reason: messageOf(error) });
        return;
      }
      let late = false;
      const timer = setTimeout(() => {
        late = true;
        sent.destroy();
      }, timeoutMs);
      sent.on('close', () => clearTimeout(timer));
      sent.on('response', response => {
        resolve(outcomeOf(response));
        drain(response);
      });
      sent.on('error', error => {
        if (late) resolve({ kind: 'failed', code: 'TIMEOUT', reason: `no answer within ${timeoutMs} ms` });
        else if (error instanceof RefusedAddress) resolve(refused(error.message));
        else resolve({ kind: 'failed', code: codeOf(error) ?? 'CONNECTION', reason: messageOf(error) });
      });
      sent.end(message.body);
    });
  }

  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }
}

const refused = (what: string): Outcome => ({
  kind: 'failed',
  code: 'ADDRESS_REFUSED',
  reason: `${what}, which is not asked: it is not an address of the public internet`,
});

function outcomeOf(response: IncomingMessage): Outcome {
  const status = response.statusCode!;
  if (status >= 200 && status < 300) return { kind: 'delivered' };
  const code = `HTTP_${status}`;
  const reason = `answered ${status}${status >= 300 && status < 400 ? '; redirects are not followed' : ''}`;
  if (status === 410) return { kind: 'gone', code, reason };
  const retryAfterMs = retryAfter(response.headers['retry-after']);
  const wait = retryAfterMs === undefined ? {} : { retryAfterMs };
  return { kind: status === 429 ? 'throttled' : 'failed', code, reason, ...wait };
}

/** Seconds, or a date (RFC 9110, 10.2.3). */
export function retryAfter(header: string | undefined, now = Date.now()): number | undefined {
  if (header === undefined) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), maxRetryAfterMs);
}

function drain(response: IncomingMessage): void {
  let bytes = 0;
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > maxAnswerBytes) response.destroy();
  });
  response.on('error', () => {});
}
