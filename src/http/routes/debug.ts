// Profiles for whoever sits at this machine: a CPU profile and a heap snapshot, in the files that Chrome's and VS
// Code's tools open. Only with `profiling`, and only over loopback: a heap snapshot holds everything.
import { Session } from 'node:inspector/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { getHeapSnapshot } from 'node:v8';
import type { FastifyInstance, FastifyRequest } from 'fastify';

const defaultSeconds = 10;
const maxSeconds = 300;

export function debugRoutes(app: FastifyInstance): void {
  let profiling = false;

  app.get('/debug/cpu-profile', async (request, reply) => {
    if (!isLocal(request)) return reply.code(403).send('only from this machine\n');
    const { seconds = String(defaultSeconds) } = request.query as { seconds?: string };
    const duration = Number(seconds);
    if (!(duration > 0 && duration <= maxSeconds)) {
      return reply.code(400).send(`seconds must be a number up to ${maxSeconds}\n`);
    }
    if (profiling) return reply.code(409).send('a profile is being taken\n');
    profiling = true;
    const session = new Session();
    session.connect();
    try {
      await session.post('Profiler.enable');
      await session.post('Profiler.start');
      await delay(duration * 1000, undefined, { ref: false });
      const { profile } = await session.post('Profiler.stop');
      reply.header('content-disposition', 'attachment; filename="millrace.cpuprofile"');
      return reply.type('application/json').send(JSON.stringify(profile));
    } finally {
      session.disconnect();
      profiling = false;
    }
  });

  app.get('/debug/heap-snapshot', async (request, reply) => {
    if (!isLocal(request)) return reply.code(403).send('only from this machine\n');
    reply.header('content-disposition', 'attachment; filename="millrace.heapsnapshot"');
    return reply.type('application/json').send(getHeapSnapshot());
  });
}

/**
 * The peer, and the name it asked for: a page in a local browser can be led here by a name of its own that it lets
 * point to 127.0.0.1.
 */
function isLocal(request: FastifyRequest): boolean {
  const peer = request.socket.remoteAddress ?? '';
  const fromHere = peer === '::1' || /^(::ffff:)?127\./.test(peer);
  return fromHere && /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(request.headers.host ?? '');
}
