// The HTTP side: health, metrics, the status page, profiles. It listens before anything else has started, so that
// /healthz and /readyz can be asked while PostgreSQL recovers.
import fastify, { type FastifyInstance } from 'fastify';
import type { Address } from '../runtime/config.ts';
import type { Part } from '../runtime/lifecycle.ts';
import { listenError } from '../runtime/listening.ts';
import type { Registry } from '../runtime/metrics.ts';
import { debugRoutes } from './routes/debug.ts';
import { healthRoutes, type Readiness } from './routes/health.ts';
import { metricsRoutes } from './routes/metrics.ts';
import { statusPageRoutes } from './routes/status-page.ts';
import type { Status } from './status.ts';

export interface HttpOptions {
  readonly address: Address;
  readonly registry: Registry;
  readonly profiling: boolean;
  readonly readiness: Readiness;
  readonly readStatus: () => Promise<Status | undefined>;
}

export class HttpServer implements Part {
  readonly name = 'http';
  readonly #address: Address;
  readonly #app: FastifyInstance;

  constructor(options: HttpOptions) {
    this.#address = options.address;
    // Keep-alive connections would hold up close(); a request under way is still answered.
    this.#app = fastify({ forceCloseConnections: 'idle' });
    healthRoutes(this.#app, options.readiness);
    metricsRoutes(this.#app, options.registry);
    statusPageRoutes(this.#app, options.readStatus);
    if (options.profiling) debugRoutes(this.#app);
  }

  /** With the port that was taken. */
  get address(): Address {
    const bound = this.#app.server.address();
    return { host: this.#address.host, port: typeof bound === 'object' && bound ? bound.port : this.#address.port };
  }

  async start(): Promise<void> {
    try {
      await this.#app.listen({ host: this.#address.host, port: this.#address.port });
    } catch (error) {
      throw listenError(error, 'HTTP', this.#address);
    }
  }

  async stop(hurry: AbortSignal): Promise<void> {
    const cut = () => this.#app.server.closeAllConnections();
    if (hurry.aborted) cut();
    hurry.addEventListener('abort', cut);
    await this.#app.close();
    hurry.removeEventListener('abort', cut);
  }
}
