// /api/captures: pipelines (pipelines.ts) that can also read tables again.
import type { FastifyInstance } from 'fastify';
import { PipelineError } from '../../storage/pipelines.ts';
import { type PipelineControl, pipelineRoutes } from './pipelines.ts';

export interface CaptureControl extends PipelineControl {
  /** How many tables are read again. */
  resnapshot(name: string, pattern: string): Promise<number>;
}

export function captureRoutes(app: FastifyInstance, captures: () => CaptureControl | undefined): void {
  pipelineRoutes(app, 'capture', captures, (api, running) => {
    api.post<{ Params: { name: string }; Querystring: { table?: string } }>(
      '/:name/resnapshot',
      async ({ params, query }, reply) => {
        if (query.table === undefined) {
          throw new PipelineError('invalid', 'no table is named', 'say ?table=schema.table; * is any characters');
        }
        return reply.code(202).send({ tables: await running().resnapshot(params.name, query.table) });
      },
    );
  });
}
