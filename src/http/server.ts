// The HTTP side: health, metrics, the status page, profiles. It listens before anything else has started, so that
// /healthz and /readyz can be asked while PostgreSQL recovers.
import type { Socket } from 'node:net';
import type { FastifyInstance, fastify as newFastify } from 'fastify';
import type { Address } from '../runtime/config.ts';
import { messageOf, OperationalError } from '../runtime/errors.ts';
import type { Part } from '../runtime/lifecycle.ts';
import { listenError } from '../runtime/listening.ts';
import type { Registry } from '../runtime/metrics.ts';
import { type CaptureControl, captureRoutes } from './routes/captures.ts';
import { debugRoutes } from './routes/debug.ts';
import { healthRoutes, type Readiness } from './routes/health.ts';
import { metricsRoutes } from './routes/metrics.ts';
import { type MirrorControl, mirrorRoutes } from './routes/mirrors.ts';
import { type PipelineControl, pipelineRoutes } from './routes/pipelines.ts';
import { type SinkControl, sinkRoutes } from './routes/sinks.ts';
import { statusPageRoutes } from './routes/status-page.ts';
import type { Status } from './status.ts';

export interface HttpOptions {
  readonly address: Address;
  /** In PEM; over plain TCP where there is none. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  readonly registry: Registry;
  readonly profiling: boolean;
  readonly readiness: Readiness;
  readonly readStatus: () => Promise<Status | undefined>;
  readonly captures?: () => CaptureControl | undefined;
  readonly sinks?: () => SinkControl | undefined;
  readonly mirrors?: () => MirrorControl | undefined;
  readonly inboxes?: () => PipelineControl | undefined;
  /** Routes of features that bring their own. */
  readonly more?: (app: FastifyInstance) => void;
}

export class HttpServer implements Part {
  readonly name = 'http';
  readonly #options: HttpOptions;
  #app: FastifyInstance | undefined;
  readonly #sockets = new Set<Socket>();
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
    const { address, tls, readiness, readStatus, registry, profiling, captures, sinks, mirrors, inboxes, more } =
      this.#options;
    // Loaded here, while PostgreSQL starts: fastify takes a fifth of all of Millrace's start.
    const { fastify } = await import('fastify');
    if (this.#stopped) return;
    // Idle keep-alive connections would hold up close(); a request under way is still answered.
    const app = tls === undefined ? fastify({ forceCloseConnections: 'idle' }) : secure(fastify, tls);
    app.server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    healthRoutes(app, readiness);
    metricsRoutes(app, registry);
    statusPageRoutes(app, readStatus);
    if (captures) captureRoutes(app, captures);
    if (sinks) sinkRoutes(app, sinks);
    if (mirrors) mirrorRoutes(app, mirrors);
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
    const cut = () => {
      for (const socket of this.#sockets) socket.destroy();
    };
    if (hurry.aborted) cut();
    hurry.addEventListener('abort', cut);
    await app.close();
    hurry.removeEventListener('abort', cut);
  }
}

/** HTTP/2 and HTTP/1.1 over TLS; routes see no difference. Throws an OperationalError for a key or certificate that is none. */
function secure(fastify: typeof newFastify, tls: { readonly cert: string; readonly key: string }): FastifyInstance {
  try {
    const app = fastify({ http2: true, https: { ...tls, allowHTTP1: true } });
    return app as unknown as FastifyInstance; // its types tell two kinds of server apart; what routes use is the same
  } catch (error) {
    throw new OperationalError(`http.tls.cert and http.tls.key cannot be used: ${messageOf(error)}`, {
      code: 'BAD_SETTING',
      hint: 'give a certificate chain and its private key in PEM, as file:PATH or env:NAME',
    });
  }
}
