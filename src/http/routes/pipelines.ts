// /api/captures, /api/sinks, /api/inboxes, /api/mirrors: what pipelines of one kind do, as JSON; and, from this machine only,
// to make, pause, resume, restart and delete them. What a definition means, and what may be done when, is the feature's affair.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { isLoopback } from '../../runtime/listening.ts';
import { PipelineError, type PipelineKind, type Refusal } from '../../storage/pipelines.ts';

/** What a feature offers to HTTP. Each throws a PipelineError for what cannot be done. */
export interface PipelineControl {
  status(): readonly unknown[];
  describe(name: string): unknown;
  create(name: string, definition: unknown): Promise<unknown>;
  delete(name: string): Promise<unknown>;
  pause(name: string): Promise<unknown>;
  resume(name: string): Promise<unknown>;
  restart(name: string): Promise<unknown>;
}

const statusCodes: Readonly<Record<Refusal, number>> = {
  exists: 409,
  unknown: 404,
  invalid: 400,
  file: 409,
  state: 409,
};

const collections: Readonly<Record<PipelineKind, string>> = {
  capture: '/api/captures',
  sink: '/api/sinks',
  inbox: '/api/inboxes',
  mirror: '/api/mirrors',
};

type Named = { Params: { name: string } };

/** `control` gives undefined until the feature has started. `more` adds routes of one kind, below the same rules. */
export function pipelineRoutes<Control extends PipelineControl>(
  app: FastifyInstance,
  kind: PipelineKind,
  control: () => Control | undefined,
  more?: (routes: FastifyInstance, running: () => Control) => void,
): void {
  const running = (): Control => {
    const given = control();
    if (given === undefined) throw new NotStarted();
    return given;
  };
  const routes = async (api: FastifyInstance): Promise<void> => {
    api.setReplySerializer(asJson);
    api.setErrorHandler(refuse);
    api.addHook('onRequest', refuseStrangers);
    api.get('/', async () => control()?.status() ?? []);
    api.post('/', async (request, reply) => {
      const { name, definition } = readBody(request.body, kind);
      const made = await running().create(name, definition);
      return reply.code(201).header('location', `${collections[kind]}/${name}`).send(made);
    });
    api.get<Named>('/:name', async ({ params }) => running().describe(params.name));
    api.delete<Named>('/:name', async ({ params }) => running().delete(params.name));
    for (const action of ['pause', 'resume', 'restart'] as const) {
      api.post<Named>(`/:name/${action}`, async ({ params }) => running()[action](params.name));
    }
    more?.(api, running);
  };
  app.register(routes, { prefix: collections[kind] });
}

function readBody(body: unknown, kind: PipelineKind): { name: string; definition: unknown } {
  const { name, definition, ...rest } = (typeof body === 'object' && body !== null ? body : {}) as Record<
    string,
    unknown
  >;
  if (
    typeof name === 'string' &&
    typeof definition === 'object' &&
    definition !== null &&
    Object.keys(rest).length === 0
  ) {
    return { name, definition };
  }
  throw new PipelineError(
    'invalid',
    `the body does not tell a ${kind}`,
    'give {"name": "…", "definition": {…}} as JSON',
  );
}

/** A page in a browser of this machine is not this machine's owner. */
async function refuseStrangers(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  if (request.method === 'GET' || request.method === 'HEAD') return;
  if (isLoopback(request.ip) && request.headers.origin === undefined) return;
  await reply.code(403).send({ error: 'pipelines are changed from this machine only' });
}

class NotStarted extends Error {}

function refuse(error: Error & { statusCode?: number }, _request: FastifyRequest, reply: FastifyReply): void {
  if (error instanceof PipelineError) {
    void reply.code(statusCodes[error.refusal]).send({ error: error.message, hint: error.hint });
  } else if (error instanceof NotStarted) {
    void reply.code(503).send({ error: 'Millrace is starting', hint: 'ask again in a moment' });
  } else if (error.statusCode !== undefined && error.statusCode < 500) {
    const hint = error.statusCode === 415 ? "say: -H 'content-type: application/json'" : undefined;
    void reply.code(error.statusCode).send({ error: error.message, hint });
  } else {
    void reply.code(500).send({ error: error.message, hint: 'the log has more' });
  }
}

const asJson = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'bigint' ? Number(inner) : inner));
