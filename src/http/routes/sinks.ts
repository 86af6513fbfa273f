// /api/sinks: pipelines (pipelines.ts) whose offsets can be moved as well.
import type { FastifyInstance } from 'fastify';
import { PipelineError } from '../../storage/pipelines.ts';
import { type PipelineControl, pipelineRoutes } from './pipelines.ts';

export interface SinkControl extends PipelineControl {
  reset(name: string, to: 'earliest' | 'latest'): Promise<unknown>;
}

export function sinkRoutes(app: FastifyInstance, sinks: () => SinkControl | undefined): void {
  pipelineRoutes(app, 'sink', sinks, (api, running) => {
    api.post<{ Params: { name: string }; Querystring: { to?: string } }>('/:name/reset', async ({ params, query }) => {
      const { to } = query;
      if (to === 'earliest' || to === 'latest') return running().reset(params.name, to);
      throw new PipelineError('invalid', 'it is not said where to', 'say ?to=earliest or ?to=latest');
    });
  });
}
