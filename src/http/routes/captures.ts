// /api/captures: what captures do, as JSON; and, from this machine only, pause, resume and resnapshot.
import type { FastifyInstance } from 'fastify';
import { isLoopback } from '../../runtime/listening.ts';

/** What captures offer to HTTP. */
export interface CaptureControl {
  status(): readonly unknown[];
  pause(name: string): Promise<boolean>;
  resume(name: string): Promise<boolean>;
  /** How many tables are read again; undefined where no such capture streams. */
  resnapshot(name: string, pattern: string): Promise<number | undefined>;
}

const asJson = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'bigint' ? Number(inner) : inner));

export function captureRoutes(app: FastifyInstance, captures: () => CaptureControl | undefined): void {
  app.get('/api/captures', async (_request, reply) => {
    reply.type('application/json');
    return asJson(captures()?.status() ?? []);
  });
  app.post<{ Params: { name: string; action: string }; Querystring: { table?: string } }>(
    '/api/captures/:name/:action',
    async (request, reply) => {
      // A page in a browser of this machine is not this machine's owner.
      if (!isLoopback(request.ip) || request.headers.origin !== undefined) {
        return reply.code(403).send({ error: 'captures are changed from this machine only' });
      }
      const { name, action } = request.params;
      const control = captures();
      if (control !== undefined && action === 'resnapshot') {
        const { table } = request.query;
        if (table === undefined) return reply.code(400).send({ error: 'say ?table=schema.table; * is any characters' });
        const tables = await control.resnapshot(name, table);
        if (tables === undefined) return reply.code(404).send({ error: `there is no capture ${name} that streams` });
        return reply.code(202).send({ tables });
      }
      if (control === undefined || (action !== 'pause' && action !== 'resume')) return reply.code(404).send();
      if (!(await control[action](name))) return reply.code(404).send({ error: `there is no capture ${name}` });
      return reply.code(204).send();
    },
  );
}
