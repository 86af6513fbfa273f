// /metrics in Prometheus's text form.
import type { FastifyInstance } from 'fastify';
import type { Registry } from '../../runtime/metrics.ts';

export function metricsRoutes(app: FastifyInstance, registry: Registry): void {
  app.get('/metrics', async (_request, reply) => {
    reply.type(registry.contentType);
    return registry.metrics();
  });
}
