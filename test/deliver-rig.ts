// A log, inboxes of it and the HTTP that serves them, in one process; and clients of event streams.
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { pino } from 'pino';
import { Deliveries, type DeliveriesOptions } from '../src/deliver/deliveries.ts';
import { deliveryRoutes } from '../src/deliver/routes.ts';
import { webhookRoutes } from '../src/deliver/webhooks/routes.ts';
import { HttpServer } from '../src/http/server.ts';
import { buildBatch } from '../src/protocol/records.ts';
import { givenIn } from '../src/runtime/definition.ts';
import { createRegistry } from '../src/runtime/metrics.ts';
import type { Log, LogOptions } from '../src/storage/log.ts';
import type { Topic, Topics } from '../src/storage/topics.ts';
import { createDatabase, type TestDatabase } from './database.ts';
import { eventually, openLog } from './open-log.ts';

export interface SentRecord {
  readonly key?: string | null;
  /** Text as it is, bytes, null; anything else as JSON. */
  readonly value: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One process that delivers. */
export interface Server {
  readonly deliveries: Deliveries;
  readonly url: string;
  stop(): Promise<void>;
}

export interface StreamEvent {
  readonly id: string;
  readonly type: string;
  readonly data: string;
}

type Overrides = Partial<Pick<DeliveriesOptions, 'access' | 'limits' | 'webhooks'>> & {
  readonly fills?: boolean;
  readonly port?: number;
  readonly tls?: { readonly cert: string; readonly key: string };
};

export const limits = {
  connections: 10_000,
  connectionsPerSubscriber: 10,
  requestsPerSecond: 1000,
  bufferBytes: 64 * 1024,
  stallMs: 60_000,
  heartbeatMs: 15_000,
  compression: true,
};

/** What env:… of a definition refers to. */
export const secrets = {
  WEBHOOK_SECRET: `whsec_${Buffer.alloc(32, 1).toString('base64')}`,
  WEBHOOK_SECRET_NEW: `whsec_${Buffer.alloc(32, 2).toString('base64')}`,
  WEBHOOK_KEY: `whsk_${Buffer.alloc(32, 3).toString('base64')}`,
};

export const openAccess = {
  jwtKey: null,
  jwtIssuer: null,
  jwtAudience: null,
  urlKey: null,
  corsOrigins: [],
  host: '127.0.0.1',
};

export interface DeliverRig {
  readonly database: TestDatabase;
  readonly log: Log;
  readonly topics: Topics;
  createTopic(name: string, partitions?: number): Promise<Topic>;
  send(topic: Topic, records: readonly SentRecord[], partition?: number): Promise<void>;
  /** `fills: false`: a process that does not lead the log. */
  serve(definitions: Readonly<Record<string, unknown>>, overrides?: Overrides): Promise<Server>;
  /** What is in an inbox, by number. */
  events(inbox: string): Promise<{ seq: bigint; subscriber: string; event_id: string; data: string; dead: string }[]>;
  /** Resolves when everything in its topics is in the inbox and committed. */
  filled(server: Server, inbox: string): Promise<void>;
  remove(): Promise<void>;
}

export async function openDeliverRig(options: Partial<LogOptions> = {}): Promise<DeliverRig> {
  const database = await createDatabase();
  const { log, topics, createTopic } = await openLog(database, { writers: 2, ...options });
  const servers: Server[] = [];
  const logger = pino({ level: process.env.MILLRACE_TEST_LOG ?? 'silent' }, pino.destination(2));
  return {
    database,
    log,
    topics,
    createTopic,
    async send(topic, given, partition = 0) {
      const records = given.map(({ key = null, value, headers = {} }) => ({
        timestamp: BigInt(Date.now()),
        key: key === null ? null : Buffer.from(key),
        value: bytesOf(value),
        headers: Object.entries(headers).map(([name, text]) => ({ key: name, value: Buffer.from(text) })),
      }));
      const { error } = await log.append(topic, log.partition(topic, partition)!, buildBatch({ records }), -1, false)
        .result;
      if (error !== 0) throw new Error(`append: ${error}`);
    },
    async serve(definitions, { fills = true, port = 0, tls, ...overrides } = {}) {
      const deliveries = new Deliveries({
        databaseUrl: database.url,
        pool: database.pool,
        logger,
        definitions: givenIn('millrace.yaml', definitions),
        access: openAccess,
        limits,
        webhooks: { workers: 32, leaseMs: 60_000, pollMs: 60_000, allow: ['127.0.0.1'] },
        references: { env: secrets, cwd: '/' },
        ingest: fills ? { log, topics, term: () => ({ brokerId: 1, epoch: log.epoch }) } : undefined,
        ...overrides,
      });
      const http = new HttpServer({
        address: { host: '127.0.0.1', port },
        tls,
        registry: createRegistry(),
        profiling: false,
        readiness: async () => undefined,
        readStatus: async () => undefined,
        inboxes: () => deliveries,
        more: app => {
          deliveryRoutes(app, () => deliveries);
          webhookRoutes(app, () => deliveries);
        },
      });
      await http.start();
      await deliveries.start();
      let stopped: Promise<void> | undefined;
      const server: Server = {
        deliveries,
        url: `${tls ? 'https' : 'http'}://127.0.0.1:${http.address.port}`,
        stop() {
          stopped ??= (async () => {
            await deliveries.drain();
            await deliveries.stop(AbortSignal.abort());
            await http.stop(AbortSignal.abort());
          })();
          return stopped;
        },
      };
      servers.push(server);
      return server;
    },
    async events(inbox) {
      const { rows } = await database.pool.query('SELECT * FROM kafka.inbox_events($1)', [inbox]);
      return rows;
    },
    async filled({ deliveries }, inbox) {
      await eventually(async () => {
        const status = deliveries.status().find(({ name }) => name === inbox);
        if (status?.state !== 'running' || status.lag !== 0n) return false;
        const { rows } = await database.pool.query('SELECT count(*) AS rows FROM kafka.inbox_events($1)', [inbox]);
        return rows[0].rows >= BigInt(status.events + status.dead);
      });
    },
    async remove() {
      await Promise.all(servers.map(server => server.stop()));
      await log.stop();
      await database.drop();
    },
  };
}

function bytesOf(value: unknown): Buffer | null {
  if (value === null || Buffer.isBuffer(value)) return value;
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
}

/** Reads an event stream as the standard says, over a connection of its own. */
export class StreamClient {
  readonly events: StreamEvent[] = [];
  readonly comments: string[] = [];
  readonly headers: IncomingMessage['headers'];
  readonly status: number;
  body = '';
  retryMs: number | undefined;
  ended = false;
  readonly #request: ClientRequest;
  readonly #response: IncomingMessage;
  #left = '';
  #wake: () => void = () => {};

  private constructor(outgoing: ClientRequest, response: IncomingMessage) {
    this.#request = outgoing;
    this.#response = response;
    this.status = response.statusCode!;
    this.headers = response.headers;
    response.setEncoding('utf8');
    response.on('data', (text: string) => this.#take(text));
    response.on('error', () => {});
    response.on('close', () => {
      this.ended = true;
      this.#wake();
    });
  }

  static open(url: string, headers: Record<string, string> = {}): Promise<StreamClient> {
    return new Promise((resolve, reject) => {
      const outgoing = request(url, { headers, agent: false });
      outgoing.on('response', response => resolve(new StreamClient(outgoing, response)));
      outgoing.on('error', reject);
      outgoing.end();
    });
  }

  get lastEventId(): string {
    return this.events.at(-1)?.id ?? '';
  }

  /** The data of what has come. */
  get data(): string[] {
    return this.events.map(({ data }) => data);
  }

  /** Resolves when so many have come; rejects when the stream ends before. */
  async received(count: number): Promise<StreamEvent[]> {
    await this.until(() => this.events.length >= count);
    return this.events;
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.ended)
        throw new Error(`the stream ended (${this.status} ${this.body}) with ${this.events.length} events`);
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
  }

  async end(): Promise<void> {
    while (!this.ended) {
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
  }

  /** Takes nothing more from the socket. */
  pause(): void {
    this.#response.pause();
  }

  resume(): void {
    this.#response.resume();
  }

  close(): void {
    this.#request.destroy();
  }

  #take(text: string): void {
    if (this.status !== 200) {
      this.body += text;
      return;
    }
    const blocks = (this.#left + text).split('\n\n');
    this.#left = blocks.pop()!;
    for (const block of blocks) this.#block(block.split('\n'));
    this.#wake();
  }

  #block(lines: readonly string[]): void {
    let id: string | undefined;
    let type = 'message';
    const data: string[] = [];
    for (const line of lines) {
      const colon = line.indexOf(':');
      const [field, value] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
      if (field === '') this.comments.push(value);
      else if (field === 'id') id = value;
      else if (field === 'event') type = value;
      else if (field === 'data') data.push(value);
      else if (field === 'retry') this.retryMs = Number(value);
    }
    if (id !== undefined) this.events.push({ id, type, data: data.join('\n') });
  }
}
