// /api/mirrors: pipelines (pipelines.ts) that also tell where records and groups are in their target, and who takes
// what is produced.
import type { FastifyInstance } from 'fastify';
import { type PipelineControl, pipelineRoutes } from './pipelines.ts';

export interface MirrorControl extends PipelineControl {
  offsets(name: string): Promise<unknown>;
  groups(name: string, now: boolean): Promise<unknown>;
  replay(name: string, asked: unknown): Promise<unknown>;
  plan(name: string, topic?: string): Promise<unknown>;
  modes(name: string): Promise<unknown>;
  setMode(name: string, topic: string, settings: unknown): Promise<unknown>;
  switchPrimary(name: string, to: 'here' | 'target', options: unknown): Promise<unknown>;
}

type Named = { Params: { name: string } };
type OfTopic = { Params: { name: string; topic: string } };

export function mirrorRoutes(app: FastifyInstance, mirrors: () => MirrorControl | undefined): void {
  pipelineRoutes(app, 'mirror', mirrors, (api, running) => {
    api.get<Named>('/:name/offsets', async ({ params }) => running().offsets(params.name));
    api.get<Named>('/:name/groups', async ({ params }) => running().groups(params.name, false));
    api.post<Named>('/:name/groups', async ({ params }) => running().groups(params.name, true));
    api.get<Named & { Querystring: { topic?: string } }>('/:name/plan', async ({ params, query }) =>
      running().plan(params.name, query.topic),
    );
    api.post<Named>('/:name/cutover', async ({ params, body }) => running().switchPrimary(params.name, 'target', body));
    api.post<Named>('/:name/rollback', async ({ params, body }) => running().switchPrimary(params.name, 'here', body));
    api.post<Named>('/:name/replay', async ({ params, body }) => running().replay(params.name, body));
    api.get<Named>('/:name/modes', async ({ params }) => running().modes(params.name));
    api.put<OfTopic>('/:name/modes/:topic', async ({ params, body }) =>
      running().setMode(params.name, params.topic, body),
    );
    api.delete<OfTopic>('/:name/modes/:topic', async ({ params }) =>
      running().setMode(params.name, params.topic, null),
    );
  });
}
