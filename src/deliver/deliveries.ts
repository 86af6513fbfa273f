// Delivery in this process. Where it leads the log it fills the inboxes that millrace.yaml defines, and serves those. Where
// it does not (broker=false), it serves all inboxes that the database has, and hears from the one that fills them.
import type { Logger } from 'pino';
import type { Pool } from '../postgres/pool.ts';
import { OperationalError } from '../runtime/errors.ts';
import type { Part } from '../runtime/lifecycle.ts';
import type { Term } from '../storage/topics.ts';
import { Access, type AccessOptions } from './access.ts';
import { Appender } from './appender.ts';
import { Channel } from './channel.ts';
import { type InboxDefinition, readDefinition } from './definition.ts';
import type { InboxRow } from './inbox.ts';
import { Ingest, type IngestContext, type IngestState } from './ingest.ts';
import { RequestRate, Turnstile } from './limits.ts';
import { Listener } from './listener.ts';

export interface DeliveriesOptions {
  readonly databaseUrl: string;
  readonly pool: Pool;
  readonly logger: Logger;
  /** By name, as millrace.yaml has them. */
  readonly definitions: Readonly<Record<string, unknown>>;
  /** The file they are from, for messages. */
  readonly file: string | undefined;
  readonly access: AccessOptions;
  readonly limits: DeliveryLimits;
  /** Undefined in a process that does not lead the log. */
  readonly ingest: (Omit<IngestContext, 'logger'> & { readonly term: () => Term }) | undefined;
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
}

export interface InboxStatus {
  readonly name: string;
  /** Undefined where another process fills it. */
  readonly state: IngestState | undefined;
  readonly reason: string | undefined;
  readonly connections: number;
  /** Records that are not in the inbox yet. */
  readonly lag: bigint;
  readonly records: number;
  readonly events: number;
  readonly duplicates: number;
  readonly dead: number;
  readonly written: number;
  readonly closed: Readonly<Record<string, number>>;
}

/** Heartbeats are spread over so many moments. */
const beats = 16;
/** Reads of connections that catch up: some of the pool stays for everything else. */
const readsAtOnce = 4;
const maxWaitingReads = 20_000;
const lookAgainMs = 1000;

export class Deliveries implements Part {
  readonly name = 'delivery';
  readonly access: Access;
  readonly limits: DeliveryLimits;
  readonly rate: RequestRate;
  readonly turns = new Turnstile(readsAtOnce, maxWaitingReads);
  readonly #options: DeliveriesOptions;
  readonly #definitions: readonly InboxDefinition[];
  readonly #channels = new Map<string, Channel>();
  readonly #ingests = new Map<string, Ingest>();
  readonly #timers: NodeJS.Timeout[] = [];
  #listener: Listener | undefined;
  #lookedAt = 0;
  #draining = false;

  /** Throws an OperationalError for what cannot be understood. */
  constructor(options: DeliveriesOptions) {
    this.#options = options;
    this.limits = options.limits;
    this.rate = new RequestRate(options.limits.requestsPerSecond);
    this.#definitions = Object.entries(options.definitions).map(([name, value]) =>
      readDefinition(name, value, options.file),
    );
    const groups = new Map<string, string>();
    for (const { name, group } of this.#definitions) {
      const other = groups.get(group);
      groups.set(group, name);
      if (other === undefined) continue;
      throw new OperationalError(`inboxes ${other} and ${name} have the same group ${group}`, {
        code: 'BAD_SETTING',
        hint: 'give each its own',
      });
    }
    this.access = new Access(options.access);
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
    const { ingest, databaseUrl, logger } = this.#options;
    if (ingest) await this.#startIngests(ingest);
    else {
      await this.#look();
      this.#listener = new Listener({
        databaseUrl,
        logger,
        onReached: (inboxId, partId, end) => this.#reached(inboxId, partId, end),
        onConnected: () => this.#refresh(),
      });
      this.#listener.start();
    }
    this.#startTimers();
  }

  async #startIngests({ log, topics, term }: NonNullable<DeliveriesOptions['ingest']>): Promise<void> {
    const { pool, logger } = this.#options;
    for (const definition of this.#definitions) {
      const appender = await Appender.open(pool, definition, term);
      const channel = this.#add(appender.inbox);
      const ingest = new Ingest({
        log,
        topics,
        logger,
        definition,
        appender,
        onAppended: (events, end) => channel.feed.offer(events, end),
      });
      this.#ingests.set(definition.name, ingest);
      ingest.start();
    }
  }

  #add(row: ConstructorParameters<typeof Channel>[0]): Channel {
    const { pool, logger, limits } = this.#options;
    const channel = new Channel(row, { pool, logger, turns: this.turns, maxBuffered: limits.bufferBytes });
    this.#channels.set(channel.inbox.name, channel);
    return channel;
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
    for (const timer of this.#timers) timer.unref();
  }

  /** The inbox of the name; the only one where none is named. */
  async channel(name: string | undefined): Promise<Channel | undefined> {
    const find = (): Channel | undefined => {
      if (name !== undefined) return this.#channels.get(name);
      return this.#channels.size === 1 ? [...this.#channels.values()][0] : undefined;
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
      'SELECT inbox_id AS id, name, acknowledge FROM kafka.inboxes ORDER BY inbox_id',
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

  async #refresh(): Promise<void> {
    for (const { inbox, feed } of this.#channels.values()) {
      inbox.expectPart();
      feed.reached(await inbox.end());
    }
  }

  status(): InboxStatus[] {
    return Array.from(this.#channels.values(), ({ inbox, feed, counters }) => {
      const ingest = this.#ingests.get(inbox.name)?.status();
      return {
        name: inbox.name,
        state: ingest?.state,
        reason: ingest?.reason,
        connections: feed.size,
        lag: ingest?.lag ?? 0n,
        records: ingest?.records ?? 0,
        events: ingest?.events ?? 0,
        duplicates: ingest?.duplicates ?? 0,
        dead: ingest?.dead ?? 0,
        written: counters.written,
        closed: counters.closed,
      };
    });
  }

  /** Ends connections, so that HTTP can close. */
  drain(): void {
    this.#draining = true;
    for (const channel of this.#channels.values()) channel.end();
  }

  async stop(): Promise<void> {
    this.#draining = true;
    for (const timer of this.#timers) clearInterval(timer);
    await Promise.all(Array.from(this.#ingests.values(), ingest => ingest.stop()));
    await this.#listener?.stop();
    await Promise.all(Array.from(this.#channels.values(), channel => channel.stop()));
  }
}
