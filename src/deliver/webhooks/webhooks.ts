// Webhooks of this process: a dispatcher for each inbox that has them, whichever process fills it. One connection hears
// what all of them wait for; looking now and then is for notifications that were lost.
import type { Logger } from 'pino';
import type { Pool } from '../../postgres/pool.ts';
import { messageOf, OperationalError } from '../../runtime/errors.ts';
import type { ReferenceSources } from '../../runtime/references.ts';
import { Inbox, type InboxRow } from '../inbox.ts';
import { Listener } from '../listener.ts';
import { addressRule } from './addresses.ts';
import { readKeys, type WebhookSettings, webhookSchema } from './definition.ts';
import { Dispatcher, type WebhookStatus } from './dispatcher.ts';
import { Sender, type SenderOptions } from './sender.ts';
import type { SigningKey } from './signature.ts';

export interface WebhookLimits {
  /** Requests at once; 0: this process sends none. */
  readonly workers: number;
  readonly leaseMs: number;
  readonly pollMs: number;
  /** Special addresses and networks that may be asked. */
  readonly allow: readonly string[];
}

export interface WebhooksOptions {
  readonly databaseUrl: string;
  readonly pool: Pool;
  readonly logger: Logger;
  readonly limits: WebhookLimits;
  readonly references: ReferenceSources;
  /** Something may have died. */
  readonly onChanged?: () => void;
  readonly lookup?: SenderOptions['lookup'];
}

interface Served {
  readonly inbox: Inbox;
  /** As they are stored: others make another dispatcher. */
  readonly written: string;
  readonly dispatcher: Dispatcher | undefined;
}

const keysAgainMs = 60_000;

export class Webhooks {
  readonly #options: WebhooksOptions;
  readonly #sender: Sender;
  readonly #served = new Map<string, Served>();
  #listener: Listener | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #stopped = false;

  /** Throws an OperationalError for addresses that are none. */
  constructor(options: WebhooksOptions) {
    this.#options = options;
    const { workers, allow } = options.limits;
    this.#sender = new Sender({
      mayAsk: addressRule(allow),
      maxIdle: workers,
      ...(options.lookup === undefined ? {} : { lookup: options.lookup }),
    });
  }

  async start(): Promise<void> {
    await this.look();
    this.#timer = setInterval(() => void this.look(), this.#options.limits.pollMs);
    this.#timer.unref();
  }

  /** Not before there is something to hear of. */
  #listen(): void {
    const { databaseUrl, logger } = this.#options;
    this.#listener = new Listener({
      databaseUrl,
      logger,
      onReached: (inboxId, partId, end) => this.#reached(inboxId, partId, end),
      onDropped: () => void this.look(),
      onWebhooks: () => this.#changed(),
      onConnected: () => this.look(),
    });
    this.#listener.start();
  }

  status(): WebhookStatus[] {
    return Array.from(this.#served.values()).flatMap(({ dispatcher }) => dispatcher?.status() ?? []);
  }

  /** Its tables are about to be dropped. */
  async forget(name: string): Promise<void> {
    await this.#looking;
    const served = this.#served.get(name);
    this.#served.delete(name);
    await served?.dispatcher?.stop();
  }

  async drain(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#looking;
    await Promise.all(Array.from(this.#served.values(), ({ dispatcher }) => dispatcher?.drain()));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#looking;
    await this.#listener?.stop();
    await Promise.all(Array.from(this.#served.values(), ({ dispatcher }) => dispatcher?.stop()));
    this.#sender.close();
  }

  #reached(inboxId: number, partId: number, end: bigint): void {
    for (const { inbox, dispatcher } of this.#served.values()) {
      if (inbox.id !== inboxId) continue;
      inbox.expectPart(partId);
      dispatcher?.reached(end);
      return;
    }
    void this.look();
  }

  #changed(): void {
    this.#options.onChanged?.();
    for (const { dispatcher } of this.#served.values()) void dispatcher?.changed();
  }

  /** What there is, and how far it has come. One after the other. */
  look(): Promise<void> {
    this.#looking = this.#looking
      .then(() => this.#lookOnce())
      .catch((error: unknown) => {
        if (!this.#stopped)
          this.#options.logger.warn({ error: messageOf(error) }, 'webhooks could not look at the inboxes');
      });
    return this.#looking;
  }

  async #lookOnce(): Promise<void> {
    if (this.#stopped) return;
    const { rows } = await this.#options.pool.query<InboxRow & { webhook: unknown }>(
      'SELECT inbox_id AS id, name, acknowledge, webhook FROM kafka.inboxes WHERE webhook IS NOT NULL ORDER BY inbox_id',
    );
    const names = new Set(rows.map(({ name }) => name));
    for (const [name, { dispatcher }] of this.#served) {
      if (names.has(name)) continue;
      this.#served.delete(name);
      await dispatcher?.stop();
    }
    for (const row of rows) await this.#serve(row);
    if (rows.length > 0 && this.#listener === undefined) this.#listen();
    this.#options.onChanged?.();
    for (const { inbox, dispatcher } of this.#served.values()) {
      if (dispatcher === undefined) continue;
      inbox.expectPart();
      dispatcher.reached(await inbox.end());
      await dispatcher.changed();
    }
  }

  async #serve(row: InboxRow & { webhook: unknown }): Promise<void> {
    const { pool, logger, limits } = this.#options;
    const written = JSON.stringify([row.id, row.webhook]);
    const before = this.#served.get(row.name);
    if (before?.written === written) return;
    await before?.dispatcher?.stop();
    const inbox = new Inbox(pool, row);
    let dispatcher: Dispatcher | undefined;
    try {
      const settings = webhookSchema.parse(row.webhook);
      if (limits.leaseMs < 2 * settings.timeout) {
        throw new OperationalError(
          `its timeout of ${settings.timeout} ms is more than half of deliver.webhook.lease.ms`,
          {
            code: 'BAD_SETTING',
            hint: 'give a longer lease, or a shorter timeout',
          },
        );
      }
      if (limits.workers > 0) {
        dispatcher = new Dispatcher({
          ...{ pool, logger, inbox, settings, sender: this.#sender },
          ...{ keys: this.#keysOf(row.name, settings), workers: limits.workers, leaseMs: limits.leaseMs },
        });
        dispatcher.start();
      }
    } catch (error) {
      logger.error({ inbox: row.name, error: messageOf(error) }, 'this process sends no webhooks of the inbox');
    }
    this.#served.set(row.name, { inbox, written, dispatcher });
  }

  #keysOf(inbox: string, settings: WebhookSettings): () => readonly SigningKey[] {
    const { references, logger } = this.#options;
    let keys = readKeys(inbox, settings, references);
    let readAt = Date.now();
    return () => {
      if (Date.now() - readAt > keysAgainMs) {
        readAt = Date.now();
        try {
          keys = readKeys(inbox, settings, references);
        } catch (error) {
          logger.warn({ inbox, error: messageOf(error) }, 'secrets could not be read again; those of before are used');
        }
      }
      return keys;
    };
  }
}
