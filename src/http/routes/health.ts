// /healthz: the process answers. /readyz: it can do its work; 503 while it starts or drains, or without a database.
import type { FastifyInstance } from 'fastify';

/** `undefined` when ready, else the reason why not. */
export type Readiness = () => Promise<string | undefined>;

export function healthRoutes(app: FastifyInstance, readiness: Readiness): void {
  app.get('/healthz', async () => 'ok\n');
  app.get('/readyz', async (_request, reply) => {
    const reason = await readiness();
    if (reason !== undefined) reply.code(503);
    return `${reason ?? 'ready'}\n`;
  });
}
