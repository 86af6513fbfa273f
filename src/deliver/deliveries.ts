// Delivery in this process. Where it leads the log it fills inboxes (inboxes.ts), and serves those. Where
// it does not (broker=false), it serves all inboxes that the database has, and hears from the one that fills them.
import type { Logger } from 'pino';
import type { Pool } from '../postgres/pool.ts';
import type { GivenDefinitions } from '../runtime/definition.ts';
import type { Part } from '../runtime/lifecycle.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { PipelineError } from '../storage/pipelines.ts';
import type { Term } from '../storage/topics.ts';
import { Access, type AccessOptions } from './access.ts';
import { Channel } from './channel.ts';
import { DeadLetters, type Shelf } from './dead-letters.ts';
import { DeadRows } from './dead-rows.ts';
import type { InboxDefinition } from './definition.ts';
import type { Inbox, InboxRow } from './inbox.ts';
import { type FilledInbox, Inboxes, type InboxesOptions } from './inboxes.ts';
import { type IngestCounters, noCounters } from './ingest.ts';
import { RequestRate, Turnstile } from './limits.ts';
import { Listener } from './listener.ts';
import { Administration } from './webhooks/administration.ts';
import { DeadWebhooks } from './webhooks/dead-letters.ts';
import type { WebhookStatus } from './webhooks/dispatcher.ts';
import { type WebhookLimits, Webhooks } from './webhooks/webhooks.ts';

export interface DeliveriesOptions {
  readonly databaseUrl: string;
  readonly pool: Pool;
  readonly logger: Logger;
  /** By name, as millrace.yaml has them. */
  readonly definitions: GivenDefinitions;
  readonly access: AccessOptions;
  readonly limits: DeliveryLimits;
  readonly webhooks: WebhookLimits;
  /** Of the secrets that webhooks are signed with. */
  readonly references: ReferenceSources;
  /** Undefined in a process that does not lead the log. */
  readonly ingest: (InboxesOptions['ingest'] & { readonly term: () => Term }) | undefined;
}

export interface DeliveryLimits {
  readonly connections: number;
  readonly connectionsPerSubscriber: number;
  readonly requestsPerSecond: number;
  /** Bytes that may wait for one client. */
  readonly bufferBytes: number;
  /** How long a client may take nothing, ms. */
  readonly stallMs: number;
  readonly heartbeatMs: number;
  /** Whether streams are compressed for who takes it. */
  readonly compression: boolean;
}

export interface InboxStatus extends IngestCounters {
  readonly name: string;
  /** Undefined where another process fills it. */
  readonly origin: FilledInbox['origin'] | undefined;
  readonly state: FilledInbox['state'] | undefined;
  readonly reason: string | undefined;
  readonly hint: string | undefined;
  readonly connections: number;
  /** Records that are not in the inbox yet. */
  readonly lag: bigint;
  /** Records and webhooks that this process has put into dead letter topics. */
  readonly deadLetters: number;
  readonly written: number;
  readonly closed: Readonly<Record<string, number>>;
}

export interface DescribedInbox extends InboxStatus {
  readonly definition: unknown;
}

/** Heartbeats are spread over so many moments. */
const beats = 16;
/** Reads of connections that catch up: some of the pool stays for everything else. */
const readsAtOnce = 4;
const maxWaitingReads = 20_000;
const lookAgainMs = 1000;
/** How often key files are read again. */
const keysAgainMs = 1000;

export class Deliveries implements Part {
  readonly name = 'delivery';
  readonly access: Access;
  readonly administration: Administration;
  readonly limits: DeliveryLimits;
  readonly rate: RequestRate;
  readonly turns = new Turnstile(readsAtOnce, maxWaitingReads);
  readonly #options: DeliveriesOptions;
  readonly #channels = new Map<string, Channel>();
  /** Inboxes that this process fills for webhooks alone. */
  readonly #unstreamed = new Set<string>();
  /** By inbox: of its records, and of its webhooks. */
  readonly #deadLetters = new Map<string, { readonly rows: DeadLetters; readonly webhooks: DeadLetters | undefined }>();
  readonly #webhooks: Webhooks;
  readonly #timers: NodeJS.Timeout[] = [];
  /** Undefined where others fill them. */
  readonly #inboxes: Inboxes | undefined;
  #listener: Listener | undefined;
  #lookedAt = 0;
  #draining = false;

  /** Throws an OperationalError for what cannot be understood. */
  constructor(options: DeliveriesOptions) {
    this.#options = options;
    this.limits = options.limits;
    this.rate = new RequestRate(options.limits.requestsPerSecond);
    this.access = new Access(options.access);
    this.administration = new Administration(options.pool);
    const { databaseUrl, pool, logger, definitions, references, ingest } = options;
    this.#webhooks = new Webhooks({
      ...{ databaseUrl, pool, logger, references, limits: options.webhooks },
      onChanged: () => {
        for (const { webhooks } of this.#deadLetters.values()) webhooks?.look();
      },
    });
    if (ingest === undefined) return;
    this.#inboxes = new Inboxes({
      context: { pool, logger, term: ingest.term },
      ...{ definitions, references, ingest },
      onOpened: (inbox, definition) => this.#opened(inbox, definition),
      onAppended: (name, events, end) => this.#channels.get(name)?.feed.offer(events, end),
      onDead: name => this.#deadLetters.get(name)?.rows.look(),
      onDeleted: name => this.#remove(name),
      assertServable: () => this.access.assertServable(),
    });
  }

  get draining(): boolean {
    return this.#draining;
  }

  get connections(): number {
    let sum = 0;
    for (const { feed } of this.#channels.values()) sum += feed.size;
    return sum;
  }

  async start(): Promise<void> {
    const { databaseUrl, logger } = this.#options;
    if (this.#inboxes !== undefined) await this.#inboxes.start();
    else {
      this.access.assertServable();
      await this.#look();
      this.#listener = new Listener({
        databaseUrl,
        logger,
        onReached: (inboxId, partId, end) => this.#reached(inboxId, partId, end),
        onDropped: id => this.#dropped(id),
        onConnected: () => this.#refresh(),
      });
      this.#listener.start();
    }
    await this.#webhooks.start();
    this.#startTimers();
  }

  #opened(inbox: Inbox, definition: InboxDefinition): void {
    const { name, channel, webhook, deadLetterTopic, webhookDeadLetterTopic } = definition;
    this.#add(inbox);
    if (channel === 'webhook') this.#unstreamed.add(name);
    const { pool, logger, ingest } = this.#options;
    const open = (shelf: Shelf, topic: string): DeadLetters => {
      const { log, topics } = ingest!;
      const deadLetters = new DeadLetters({ logger, log, topics, inbox: name, topic, shelf });
      deadLetters.look();
      return deadLetters;
    };
    this.#deadLetters.set(name, {
      rows: open(new DeadRows(pool, inbox), deadLetterTopic),
      webhooks: webhook && open(new DeadWebhooks(pool, inbox), webhookDeadLetterTopic),
    });
    if (webhook !== undefined) void this.#webhooks.look();
  }

  #add(row: ConstructorParameters<typeof Channel>[0]): Channel {
    const { pool, logger, limits } = this.#options;
    const channel = new Channel(row, { pool, logger, turns: this.turns, maxBuffered: limits.bufferBytes });
    this.#channels.set(channel.inbox.name, channel);
    return channel;
  }

  async #remove(name: string): Promise<void> {
    const channel = this.#channels.get(name);
    this.#channels.delete(name);
    this.#unstreamed.delete(name);
    await channel?.stop();
    await this.#webhooks.forget(name);
    await this.#stopDeadLetters(name);
    this.#deadLetters.delete(name);
  }

  async #stopDeadLetters(inbox: string): Promise<void> {
    const { rows, webhooks } = this.#deadLetters.get(inbox) ?? {};
    await Promise.all([rows?.stop(), webhooks?.stop()]);
  }

  #startTimers(): void {
    const { heartbeatMs, stallMs } = this.limits;
    let beat = 0;
    this.#timers.push(
      setInterval(() => {
        beat = (beat + 1) % beats;
        let i = 0;
        for (const { feed } of this.#channels.values()) {
          for (const stream of feed.streams()) if (i++ % beats === beat) stream.beat();
        }
      }, heartbeatMs / beats),
      setInterval(
        () => {
          for (const channel of this.#channels.values()) channel.sweep(stallMs);
          this.rate.sweep();
        },
        Math.min(1000, stallMs),
      ),
    );
    this.#timers.push(setInterval(() => void this.access.look(this.#options.logger), keysAgainMs));
    for (const timer of this.#timers) timer.unref();
  }

  /** The inbox of the name; the only one where none is named. */
  async channel(name: string | undefined): Promise<Channel | undefined> {
    const find = (): Channel | undefined => {
      const names = [...this.#channels.keys()].filter(candidate => !this.#unstreamed.has(candidate));
      const wanted = name ?? (names.length === 1 ? names[0] : undefined);
      return wanted !== undefined && names.includes(wanted) ? this.#channels.get(wanted) : undefined;
    };
    const found = find();
    if (found !== undefined || this.#listener === undefined || Date.now() - this.#lookedAt < lookAgainMs) return found;
    await this.#look();
    return find();
  }

  /** The inboxes that others fill. */
  async #look(): Promise<void> {
    this.#lookedAt = Date.now();
    const { rows } = await this.#options.pool.query<InboxRow>(
      `SELECT inbox_id AS id, name, acknowledge FROM kafka.inboxes WHERE channel <> 'webhook' ORDER BY inbox_id`,
    );
    for (const row of rows) {
      if (this.#channels.has(row.name)) continue;
      const channel = this.#add(row);
      channel.feed.reached(await channel.inbox.end());
    }
  }

  #reached(inboxId: number, partId: number, end: bigint): void {
    for (const { inbox, feed } of this.#channels.values()) {
      if (inbox.id !== inboxId) continue;
      inbox.expectPart(partId);
      feed.reached(end);
    }
  }

  #dropped(inboxId: number): void {
    for (const { inbox } of this.#channels.values()) if (inbox.id === inboxId) void this.#remove(inbox.name);
  }

  async #refresh(): Promise<void> {
    for (const { inbox, feed } of this.#channels.values()) {
      inbox.expectPart();
      feed.reached(await inbox.end());
    }
  }

  status(): InboxStatus[] {
    const filled = this.#inboxes?.status() ?? [];
    const names = new Set(filled.map(({ name }) => name));
    const others = [...this.#channels.keys()].filter(name => !names.has(name)).map(name => ({ ...notFilled, name }));
    return [...filled, ...others].map(status => this.#withStreams(status));
  }

  describe(name: string): DescribedInbox {
    return this.#withStreams(this.#filling().describe(name));
  }

  async create(name: string, definition: unknown): Promise<DescribedInbox> {
    return this.#withStreams(await this.#filling().create(name, definition));
  }

  async delete(name: string): Promise<Record<string, never>> {
    return this.#filling().delete(name);
  }

  async pause(name: string): Promise<DescribedInbox> {
    return this.#withStreams(await this.#filling().pause(name));
  }

  async resume(name: string): Promise<DescribedInbox> {
    return this.#withStreams(await this.#filling().resume(name));
  }

  async restart(name: string): Promise<DescribedInbox> {
    return this.#withStreams(await this.#filling().restart(name));
  }

  #filling(): Inboxes {
    if (this.#inboxes !== undefined) return this.#inboxes;
    throw new PipelineError('state', 'another process fills the inboxes', 'ask the one that leads the log');
  }

  #withStreams<F extends { readonly name: string; readonly reason: string | undefined }>(filled: F) {
    const channel = this.#channels.get(filled.name);
    const { rows, webhooks } = this.#deadLetters.get(filled.name) ?? {};
    const reasons = [filled.reason, this.access.trouble].filter(reason => reason !== undefined);
    return {
      ...filled,
      reason: reasons.length === 0 ? undefined : reasons.join('; '),
      connections: channel?.feed.size ?? 0,
      deadLetters: (rows?.sent ?? 0) + (webhooks?.sent ?? 0),
      written: channel?.counters.written ?? 0,
      closed: channel?.counters.closed ?? {},
    };
  }

  webhooks(): WebhookStatus[] {
    return this.#webhooks.status();
  }

  /** Ends connections, so that HTTP can close; waits for webhooks under way. */
  async drain(): Promise<void> {
    this.#draining = true;
    for (const channel of this.#channels.values()) channel.end();
    await this.#webhooks.drain();
  }

  async stop(hurry: AbortSignal): Promise<void> {
    this.#draining = true;
    for (const timer of this.#timers) clearInterval(timer);
    await this.#inboxes?.stop(hurry);
    await this.#webhooks.stop();
    await Promise.all(Array.from(this.#deadLetters.keys(), name => this.#stopDeadLetters(name)));
    await this.#listener?.stop();
    await Promise.all(Array.from(this.#channels.values(), channel => channel.stop()));
  }
}

const notFilled = { origin: undefined, state: undefined, reason: undefined, hint: undefined, lag: 0n, ...noCounters() };
