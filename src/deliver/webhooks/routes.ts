// /api/webhooks: what webhooks do; and, from this machine only, endpoints and dead letters. Secrets go in and never out.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { isLoopback } from '../../runtime/listening.ts';
import type { Deliveries } from '../deliveries.ts';
import { UnknownInbox } from './administration.ts';
import { isWebUrl } from './definition.ts';
import { keyOf, secretForms } from './signature.ts';

type Named = { Params: { inbox: string } };
type OfSubscriber = { Params: { inbox: string; subscriber: string } };
type Paged = { Querystring: { limit?: string; after?: string } };

class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const maxPage = 1000;
const endpointBody = z.strictObject({
  url: z.string().refine(isWebUrl, 'give an http or https URL without a password in it'),
  secrets: z
    .array(z.string().refine(text => keyOf(text) !== undefined, `give ${secretForms}`))
    .max(10)
    .default([]),
});
const redriveBody = z.strictObject({ ids: z.array(z.string()).max(10_000).optional() }).prefault({});

/** `running` gives undefined until delivery has started. */
export function webhookRoutes(app: FastifyInstance, running: () => Deliveries | undefined): void {
  const webhooks = () => {
    const administration = running()?.administration;
    if (administration === undefined) throw new Refusal(503, 'Millrace is starting, or has no inbox');
    return administration;
  };
  app.register(
    async api => {
      api.setReplySerializer(asJson);
      api.setErrorHandler(refuse);
      api.addHook('onRequest', refuseStrangers);
      api.get('/', async () => running()?.webhooks() ?? []);
      api.get<Named & Paged>('/:inbox/endpoints', async ({ params, query }) =>
        webhooks().endpoints(params.inbox, query.after, limitOf(query.limit)),
      );
      api.get<Named & Paged>('/:inbox/dead-letters', async ({ params, query }) =>
        webhooks().deadLetters(params.inbox, numberOf(query.after), limitOf(query.limit)),
      );
      api.post<Named>('/:inbox/redrive', async ({ params, body }) => {
        const { ids } = parse(redriveBody, body ?? {});
        return { redriven: await webhooks().redrive(params.inbox, ids) };
      });
      // Of all that have none of their own.
      api.put<Named>('/:inbox/endpoint', async ({ params, body }) =>
        webhooks().setEndpoint(params.inbox, null, parse(endpointBody, body)),
      );
      api.delete<Named>('/:inbox/endpoint', async ({ params }, reply) =>
        removed(reply, await webhooks().removeEndpoint(params.inbox, null)),
      );
      api.put<OfSubscriber>('/:inbox/endpoints/:subscriber', async ({ params, body }) =>
        webhooks().setEndpoint(params.inbox, params.subscriber, parse(endpointBody, body)),
      );
      api.delete<OfSubscriber>('/:inbox/endpoints/:subscriber', async ({ params }, reply) =>
        removed(reply, await webhooks().removeEndpoint(params.inbox, params.subscriber)),
      );
      for (const action of ['enable', 'disable'] as const) {
        const enabled = action === 'enable';
        api.post<Named>(`/:inbox/endpoint/${action}`, async ({ params }, reply) =>
          removed(reply, await webhooks().enable(params.inbox, null, enabled)),
        );
        api.post<OfSubscriber>(`/:inbox/endpoints/:subscriber/${action}`, async ({ params }, reply) =>
          removed(reply, await webhooks().enable(params.inbox, params.subscriber, enabled)),
        );
      }
    },
    { prefix: '/api/webhooks' },
  );
}

async function removed(reply: FastifyReply, was: boolean): Promise<void> {
  if (!was) throw new Refusal(404, 'there is no such endpoint');
  await reply.code(204).send();
}

function limitOf(text = '100'): number {
  const limit = Number(text);
  if (!Number.isInteger(limit) || limit < 1 || limit > maxPage) {
    throw new Refusal(400, `limit is a number from 1 to ${maxPage}`);
  }
  return limit;
}

function numberOf(text: string | undefined): bigint {
  if (text === undefined) return 0n;
  if (!/^\d{1,18}$/.test(text)) throw new Refusal(400, 'after is the seq of the last that was given');
  return BigInt(text);
}

function parse<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const read = schema.safeParse(body);
  if (read.success) return read.data;
  const issue = read.error.issues[0]!;
  throw new Refusal(400, `${issue.path.join('.') || 'the body'}: ${issue.message}`);
}

/** A page in a browser of this machine is not this machine's owner. Endpoints tell where people's events go. */
async function refuseStrangers(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  if (request.routeOptions.url === '/api/webhooks/' || request.routeOptions.url === '/api/webhooks') return;
  if (isLoopback(request.ip) && request.headers.origin === undefined) return;
  await reply.code(403).send({ error: 'endpoints and dead letters are for this machine only' });
}

function refuse(error: Error & { statusCode?: number }, _request: FastifyRequest, reply: FastifyReply): void {
  if (error instanceof Refusal) void reply.code(error.status).send({ error: error.message });
  else if (error instanceof UnknownInbox) void reply.code(404).send({ error: error.message });
  else if (error.statusCode !== undefined && error.statusCode < 500) {
    void reply.code(error.statusCode).send({ error: error.message });
  } else {
    void reply.code(503).header('retry-after', 1).send({ error: 'the database does not answer' });
  }
}

const asJson = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'bigint' ? Number(inner) : inner));
