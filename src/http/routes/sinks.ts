// /api/sinks: what sinks do, as JSON; and, from this machine only, pause, resume, restart and reset.
import type { FastifyInstance } from 'fastify';
import { isLoopback } from '../../runtime/listening.ts';

/** What sinks offer to HTTP; false where there is no sink of the name. */
export interface SinkControl {
  status(): readonly unknown[];
  pause(name: string): Promise<boolean>;
  resume(name: string): Promise<boolean>;
  restart(name: string): Promise<boolean>;
  reset(name: string, to: 'earliest' | 'latest'): Promise<boolean>;
}

const asJson = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'bigint' ? Number(inner) : inner));

export function sinkRoutes(app: FastifyInstance, sinks: () => SinkControl | undefined): void {
  app.get('/api/sinks', async (_request, reply) => {
    reply.type('application/json');
    return asJson(sinks()?.status() ?? []);
  });
  app.post<{ Params: { name: string; action: string }; Querystring: { to?: string } }>(
    '/api/sinks/:name/:action',
    async (request, reply) => {
      // A page in a browser of this machine is not this machine's owner.
      if (!isLoopback(request.ip) || request.headers.origin !== undefined) {
        return reply.code(403).send({ error: 'sinks are changed from this machine only' });
      }
      const { name, action } = request.params;
      const control = sinks();
      if (control === undefined) return reply.code(404).send();
      let found: boolean;
      if (action === 'reset') {
        const { to } = request.query;
        if (to !== 'earliest' && to !== 'latest')
          return reply.code(400).send({ error: 'say ?to=earliest or ?to=latest' });
        found = await control.reset(name, to);
      } else if (action === 'pause' || action === 'resume' || action === 'restart') {
        found = await control[action](name);
      } else {
        return reply.code(404).send();
      }
      if (!found) return reply.code(404).send({ error: `there is no sink ${name}` });
      return reply.code(204).send();
    },
  );
}
