// /api/mirrors: pipelines (pipelines.ts) that also tell where records and groups are in their target.
import type { FastifyInstance } from 'fastify';
import { type PipelineControl, pipelineRoutes } from './pipelines.ts';

export interface MirrorControl extends PipelineControl {
  offsets(name: string): Promise<unknown>;
  groups(name: string, now: boolean): Promise<unknown>;
}

type Named = { Params: { name: string } };

export function mirrorRoutes(app: FastifyInstance, mirrors: () => MirrorControl | undefined): void {
  pipelineRoutes(app, 'mirror', mirrors, (api, running) => {
    api.get<Named>('/:name/offsets', async ({ params }) => running().offsets(params.name));
    api.get<Named>('/:name/groups', async ({ params }) => running().groups(params.name, false));
    api.post<Named>('/:name/groups', async ({ params }) => running().groups(params.name, true));
  });
}
