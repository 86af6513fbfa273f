// /v1: event streams, acknowledgements, and what a subscriber has. Whoever asks is asked first who they are (access.ts).
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { AccessError, type Grant } from './access.ts';
import type { Begin, Channel } from './channel.ts';
import { matchesTopic } from './definition.ts';
import type { Deliveries } from './deliveries.ts';
import { idOf, seqOf } from './frame.ts';
import type { InboxEvent } from './inbox.ts';
import { ChunkedOutlet, GzipOutlet, type Outlet, PlainOutlet, takesGzip } from './outlet.ts';
import type { Receipt } from './receipts.ts';

type Query = Readonly<Record<string, string | undefined>>;

/** What cannot be answered, and with which status. */
class Refusal extends Error {
  readonly status: number;
  readonly retryAfterS: number | undefined;
  constructor(status: number, message: string, retryAfterS?: number) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

interface Asked {
  readonly deliveries: Deliveries;
  readonly channel: Channel;
  readonly grant: Grant;
}

const maxPage = 500;
const ackBody = z.strictObject({ subscriber: z.string().min(1).optional(), id: z.string() });
const readBody = z.strictObject({
  subscriber: z.string().min(1).optional(),
  ids: z.array(z.string()).max(1000).default([]),
  until: z.string().optional(),
});

/** `running` gives undefined until delivery has started. */
export function deliveryRoutes(app: FastifyInstance, running: () => Deliveries | undefined): void {
  app.register(
    async api => {
      api.setErrorHandler((error, _request, reply) => refuse(error as Error & { statusCode?: number }, reply));
      api.addHook('onRequest', async (request, reply) => cors(running(), request, reply));
      api.options('/*', async (_request, reply) => reply.code(204).send());
      api.get('/stream', async (request, reply) => stream(await ask(running, request, undefined), request, reply));
      api.post('/ack', async (request, reply) => {
        const { subscriber, id } = parse(ackBody, request.body);
        const { channel, grant } = await ask(running, request, subscriber);
        await channel.receipts.store(await receiptsOf(channel, 'acknowledged', grant.subscriber, [id]));
        return reply.code(204).send();
      });
      api.get<{ Params: { subscriber: string } }>('/notifications/:subscriber', async request =>
        list(await ask(running, request, request.params.subscriber), request.query as Query),
      );
      api.post('/notifications/read', async (request, reply) => {
        const { subscriber, ids, until } = parse(readBody, request.body);
        const { channel, grant } = await ask(running, request, subscriber);
        const read = await receiptsOf(channel, 'read', grant.subscriber, ids);
        const seen = await receiptsOf(channel, 'seen', grant.subscriber, until === undefined ? [] : [until]);
        await channel.receipts.store([...read, ...seen]);
        return reply.code(204).send();
      });
    },
    { prefix: '/v1' },
  );
}

async function ask(
  running: () => Deliveries | undefined,
  request: FastifyRequest,
  subscriber: string | undefined,
): Promise<Asked> {
  const deliveries = running();
  if (deliveries === undefined || deliveries.draining) throw new Refusal(503, 'Millrace is starting or stopping', 1);
  const query = request.query as Query;
  for (const value of Object.values(query)) {
    if (typeof value !== 'string') throw new Refusal(400, 'give each parameter once');
  }
  const channel = await deliveries.channel(query.inbox);
  if (channel === undefined) {
    const message = query.inbox === undefined ? 'say which inbox: ?inbox=…' : `there is no inbox ${query.inbox}`;
    throw new Refusal(404, message);
  }
  const { authorization, origin } = request.headers;
  const { host } = request; // HTTP/2 has it as :authority
  const wanted = { inbox: channel.inbox.name, subscriber: subscriber ?? query.subscriber };
  const grant = await deliveries.access.grant({ authorization, origin, host, query }, wanted);
  const waitS = deliveries.rate.take(grant.subscriber);
  if (waitS > 0) throw new Refusal(429, 'that is too often', waitS);
  return { deliveries, channel, grant };
}

async function stream({ deliveries, channel, grant }: Asked, request: FastifyRequest, reply: FastifyReply) {
  const { limits, turns } = deliveries;
  const { subscriber } = grant;
  if (deliveries.connections >= limits.connections || turns.full) {
    throw new Refusal(503, 'too many connections', 1 + Math.floor(Math.random() * 5));
  }
  if (channel.feed.connectionsOf(subscriber) >= limits.connectionsPerSubscriber) {
    throw new Refusal(429, `${subscriber} has ${limits.connectionsPerSubscriber} connections already`, 5);
  }
  const query = request.query as Query;
  const begin = beginOf(query, request.headers['last-event-id']);
  const wants = wantsOf(query, grant);
  const beginning = await channel.beginning(begin, subscriber);
  if (deliveries.draining) throw new Refusal(503, 'Millrace is stopping', 1);
  if (reply.raw.destroyed || request.raw.socket.destroyed) return reply.hijack();
  reply.hijack();
  if (request.raw.httpVersionMajor === 1) request.raw.socket.setNoDelay(true); // a session of HTTP/2 does so itself
  const gzip = limits.compression && takesGzip(request.headers['accept-encoding']);
  const vary = [reply.getHeader('vary'), 'accept-encoding'].filter(Boolean).join(', ');
  reply.raw.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    ...(gzip ? { 'content-encoding': 'gzip' } : {}),
    vary,
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no', // nginx would keep events back
  });
  const outlet = gzip ? new GzipOutlet(reply.raw) : plainOutlet(reply.raw);
  channel.open({ subscriber, outlet, begin, wants, expiresAt: grant.expiresAt }, beginning);
  return reply;
}

function plainOutlet(response: FastifyReply['raw']): Outlet {
  response.flushHeaders();
  const { socket } = response;
  // It has none yet where the client did not wait for the answer before; and HTTP/2 has frames of its own.
  if (socket === null || !response.chunkedEncoding) return new PlainOutlet(response);
  return new ChunkedOutlet(response, socket);
}

/** A client that comes back sends what it had last; that goes before what its URL says. */
function beginOf(query: Query, header: string | string[] | undefined): Begin {
  const id = (typeof header === 'string' && header !== '' ? header : undefined) ?? query.lastEventId;
  if (id !== undefined) {
    if (id.length > 100) throw new Refusal(400, 'that is no id of an event');
    return { at: 'id', id };
  }
  if (query.since !== undefined) {
    const time = new Date(/^\d+$/.test(query.since) ? Number(query.since) : query.since);
    if (Number.isNaN(time.getTime())) throw new Refusal(400, 'since is a time as ISO 8601 has it, or ms since 1970');
    return { at: 'time', time };
  }
  if (query.from === undefined) return { at: 'cursor' };
  if (query.from === 'now') return { at: 'now' };
  throw new Refusal(400, 'from can be now; leave it out to begin with what is pending');
}

function wantsOf({ topics, types, priority }: Query, grant: Grant): ((event: InboxEvent) => boolean) | undefined {
  const least = priority === undefined ? 0 : Number(priority);
  if (!Number.isInteger(least)) throw new Refusal(400, 'priority is the least that is wanted, 0 to 9');
  const tests: ((event: InboxEvent) => boolean)[] = [];
  for (const patterns of [grant.topics, topics?.split(',')]) {
    if (patterns !== undefined) tests.push(event => matchesTopic(patterns, event.topic));
  }
  const wanted = types === undefined ? undefined : new Set(types.split(','));
  if (wanted) tests.push(event => event.type !== null && wanted.has(event.type));
  if (least > 0) tests.push(event => event.priority >= least);
  return tests.length === 0 ? undefined : event => tests.every(test => test(event));
}

/** `state=pending`: what the subscriber has not had yet, oldest first. `all`, `unread`: newest first. */
async function list({ channel, grant }: Asked, query: Query) {
  const { inbox, receipts, cursorKind } = channel;
  const { subscriber } = grant;
  const limit = Math.min(Number(query.limit ?? 50), maxPage);
  if (!Number.isInteger(limit) || limit < 1) throw new Refusal(400, 'limit is a number of at least 1');
  const state = query.state ?? 'all';
  if (state !== 'all' && state !== 'unread' && state !== 'pending') {
    throw new Refusal(400, 'state can be all, unread or pending');
  }
  const cursor = await receipts.cursor(cursorKind, subscriber);
  const seen = await receipts.cursor('seen', subscriber);
  const pending = state === 'pending';
  const from = query.page === undefined ? undefined : numberOf(channel, query.page);
  const events = pending
    ? (await inbox.of(subscriber, from ?? cursor, limit)).events
    : await inbox.history(subscriber, from ?? (await inbox.end()) + 1n, limit);
  const seqs = events.map(({ seq }) => seq);
  const [low = 0n, high = 0n] = pending ? [seqs[0], seqs.at(-1)] : [seqs.at(-1), seqs[0]];
  const read = await receipts.readBetween(subscriber, low, high);
  const wants = wantsOf(query, grant) ?? (() => true);
  const notifications = events
    .map(event => ({ event, read: event.seq <= seen || read.has(event.seq) }))
    .filter(({ event, read }) => wants(event) && !(state === 'unread' && read))
    .map(({ event, read }) => ({
      id: idOf(inbox.id, event.seq),
      eventId: event.eventId,
      topic: event.topic,
      type: event.type,
      priority: event.priority,
      time: new Date(event.time).toISOString(),
      expires: event.expires === null ? null : new Date(event.expires).toISOString(),
      delivered: event.seq <= cursor,
      read,
      data: event.data,
    }));
  const next = events.length === limit ? idOf(inbox.id, seqs.at(-1)!) : null;
  return { notifications, next };
}

/** A receipt for what is still to come would hide it. */
async function receiptsOf(
  channel: Channel,
  kind: Receipt['kind'],
  subscriber: string,
  ids: readonly string[],
): Promise<Receipt[]> {
  const receipts = ids.map(id => ({ kind, subscriber, seq: numberOf(channel, id) }));
  const { feed, inbox } = channel;
  if (receipts.some(({ seq }) => seq > feed.end)) {
    const end = await inbox.end();
    if (receipts.some(({ seq }) => seq > end)) throw new Refusal(400, 'there is no event of that id yet');
  }
  return receipts;
}

function numberOf({ inbox }: Channel, id: string): bigint {
  const seq = seqOf(inbox.id, id);
  if (seq === undefined) throw new Refusal(400, 'that is no id of an event of this inbox');
  return seq;
}

function parse<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const read = schema.safeParse(body);
  if (read.success) return read.data;
  const issue = read.error.issues[0]!;
  throw new Refusal(400, `${issue.path.join('.') || 'the body'}: ${issue.message}`);
}

async function cors(deliveries: Deliveries | undefined, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const origin = deliveries?.access.corsOrigin(request.headers.origin);
  if (origin === undefined) return;
  reply.headers({
    'access-control-allow-origin': origin,
    'access-control-allow-headers': 'authorization, content-type, last-event-id',
    'access-control-allow-methods': 'GET, POST',
    'access-control-max-age': '600',
    vary: 'origin',
  });
}

function refuse(error: Error & { statusCode?: number }, reply: FastifyReply): void {
  if (error instanceof Refusal) {
    if (error.retryAfterS !== undefined) void reply.header('retry-after', error.retryAfterS);
    void reply.code(error.status).send({ error: error.message });
  } else if (error instanceof AccessError) {
    if (error.status === 401) void reply.header('www-authenticate', 'Bearer');
    void reply.code(error.status).send({ error: error.message });
  } else if (error.statusCode !== undefined && error.statusCode < 500) {
    void reply.code(error.statusCode).send({ error: error.message });
  } else {
    void reply.code(503).header('retry-after', 1).send({ error: 'the database does not answer' });
  }
}
