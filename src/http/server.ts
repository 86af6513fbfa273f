// The HTTP side: health, metrics, the status page, profiles. It listens before anything else has started, so that
// /healthz and /readyz can be asked while PostgreSQL recovers.
import type { FastifyInstance } from 'fastify';
import type { Address } from '../runtime/config.ts';
import type { Part } from '../runtime/lifecycle.ts';
import { listenError } from '../runtime/listening.ts';
import type { Registry } from '../runtime/metrics.ts';
import { type CaptureControl, captureRoutes } from './routes/captures.ts';
import { debugRoutes } from './routes/debug.ts';
import { healthRoutes, type Readiness } from './routes/health.ts';
import { metricsRoutes } from './routes/metrics.ts';
import { type PipelineControl, pipelineRoutes } from './routes/pipelines.ts';
import { type SinkControl, sinkRoutes } from './routes/sinks.ts';
import { statusPageRoutes } from './routes/status-page.ts';
import type { Status } from './status.ts';

export interface HttpOptions {
  readonly address: Address;
  readonly registry: Registry;
  readonly profiling: boolean;
  readonly readiness: Readiness;
  readonly readStatus: () => Promise<Status | undefined>;
  readonly captures?: () => CaptureControl | undefined;
  readonly sinks?: () => SinkControl | undefined;
  readonly inboxes?: () => PipelineControl | undefined;
  /** Routes of features that bring their own. */
  readonly more?: (app: FastifyInstance) => void;
}

export class HttpServer implements Part {
  readonly name = 'http';
  readonly #options: HttpOptions;
  #app: FastifyInstance | undefined;
  #stopped = false;

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  /** With the port that was taken. */
  get address(): Address {
    const { host, port } = this.#options.address;
    const bound = this.#app?.server.address();
    return { host, port: typeof bound === 'object' && bound ? bound.port : port };
  }

  async start(): Promise<void> {
    const { address, readiness, readStatus, registry, profiling, captures, sinks, inboxes, more } = this.#options;
    // Loaded here, while PostgreSQL starts: fastify takes a fifth of all of Millrace's start.
    const { fastify } = await import('fastify');
    if (this.#stopped) return;
    // Idle keep-alive connections would hold up close(); a request under way is still answered.
    const app = fastify({ forceCloseConnections: 'idle' });
    healthRoutes(app, readiness);
    metricsRoutes(app, registry);
    statusPageRoutes(app, readStatus);
    if (captures) captureRoutes(app, captures);
    if (sinks) sinkRoutes(app, sinks);
    if (inboxes) pipelineRoutes(app, 'inbox', inboxes);
    more?.(app);
    if (profiling) debugRoutes(app);
    this.#app = app;
    try {
      await app.listen({ host: address.host, port: address.port });
    } catch (error) {
      throw listenError(error, 'HTTP', address);
    }
  }

  async stop(hurry: AbortSignal): Promise<void> {
    this.#stopped = true;
    const app = this.#app;
    if (app === undefined) return;
    const cut = () => app.server.closeAllConnections();
    if (hurry.aborted) cut();
    hurry.addEventListener('abort', cut);
    await app.close();
    hurry.removeEventListener('abort', cut);
  }
}
