// Hears from the process that fills the inboxes how far they have come: LISTEN on a connection of its own (manual,
// "NOTIFY"). What is missed while the connection is lost is learned by looking once it is back.
import type { Logger } from 'pino';
import { PostgresClient } from '../postgres/client.ts';
import { settleSession } from '../postgres/session-settings.ts';
import { backoff } from '../runtime/backoff.ts';
import { messageOf } from '../runtime/errors.ts';

export interface ListenerOptions {
  readonly databaseUrl: string;
  readonly logger: Logger;
  readonly onReached: (inboxId: number, partId: number, end: bigint) => void;
  readonly onDropped: (inboxId: number) => void;
  /** Endpoints, leases or dead letters are others. */
  readonly onWebhooks?: () => void;
  /** Notifications may have been missed. */
  readonly onConnected: () => Promise<void>;
}

const channel = 'millrace_inbox';

export class Listener {
  readonly #options: ListenerOptions;
  #client: PostgresClient | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;
  #lost: () => void = () => {};

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#lost();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { logger } = this.#options;
    let wait = backoff({ firstMs: 50, maxMs: 5000 });
    while (!this.#stopped) {
      try {
        await this.#listen();
        wait = backoff({ firstMs: 50, maxMs: 5000 });
      } catch (error) {
        logger.warn({ error: messageOf(error) }, 'inboxes are not heard of; trying again');
      } finally {
        await this.#client?.end().catch(() => {});
      }
      if (!this.#stopped) await wait();
    }
  }

  /** Until the connection is lost or the listener stops. */
  async #listen(): Promise<void> {
    const { databaseUrl, onReached, onDropped, onWebhooks, onConnected } = this.#options;
    const client = new PostgresClient(databaseUrl, {
      application_name: 'millrace listener',
      connectionTimeoutMillis: 10_000,
      keepAlive: true,
    });
    this.#client = client;
    const lost = new Promise<void>(resolve => {
      this.#lost = resolve;
      client.on('end', resolve);
      client.on('error', () => resolve());
    });
    client.on('notification', ({ payload = '' }) => {
      const [inbox, part, end] = payload.split(' ');
      if (end !== undefined && /^\d+$/.test(end)) onReached(Number(inbox), Number(part), BigInt(end));
      else if (part === 'dropped') onDropped(Number(inbox));
      else if (payload === 'webhooks') onWebhooks?.();
    });
    await client.connect();
    await client.query(settleSession);
    await client.query(`LISTEN ${channel}`);
    await onConnected();
    if (!this.#stopped) await lost;
  }
}
