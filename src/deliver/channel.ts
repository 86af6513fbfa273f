// One inbox in this process: what connections, requests and the process that fills it share.
import type { Logger } from 'pino';
import type { Pool } from '../postgres/pool.ts';
import { Feed } from './feed.ts';
import { retryFrame, seqOf } from './frame.ts';
import { Inbox, type InboxEvent, type InboxRow } from './inbox.ts';
import type { Turnstile } from './limits.ts';
import type { Outlet } from './outlet.ts';
import { Receipts } from './receipts.ts';
import { type CloseReason, Stream } from './stream.ts';

export interface ChannelOptions {
  readonly pool: Pool;
  readonly logger: Logger;
  /** Of reads by connections that catch up. */
  readonly turns: Turnstile;
  /** Bytes that may wait for one client. */
  readonly maxBuffered: number;
}

export interface ChannelCounters {
  /** Handed to the operating system, once for each connection. */
  written: number;
  closed: Record<CloseReason, number>;
}

/** Where a connection begins. */
export type Begin =
  | { readonly at: 'cursor' }
  | { readonly at: 'now' }
  | { readonly at: 'id'; readonly id: string }
  | { readonly at: 'time'; readonly time: Date };

export interface Opening {
  readonly subscriber: string;
  readonly outlet: Outlet;
  readonly begin: Begin;
  /** Undefined where all are wanted. */
  readonly wants: ((event: InboxEvent) => boolean) | undefined;
  readonly expiresAt: number | undefined;
}

const pageEvents = 500;
const leastRetryMs = 1000;
const mostRetryMs = 4000;

export class Channel {
  readonly inbox: Inbox;
  readonly feed: Feed;
  readonly receipts: Receipts;
  readonly counters: ChannelCounters = {
    written: 0,
    closed: { client: 0, slow: 0, expired: 0, stopping: 0, failed: 0 },
  };
  readonly #options: ChannelOptions;
  readonly #expiries = new Map<Stream, number>();

  constructor(row: InboxRow | Inbox, options: ChannelOptions) {
    this.inbox = row instanceof Inbox ? row : new Inbox(options.pool, row);
    this.feed = new Feed(this.inbox, options.logger, 0n);
    this.receipts = new Receipts(this.inbox, options.logger);
    this.#options = options;
  }

  /** What has moved a subscriber on. */
  get cursorKind(): 'delivered' | 'acknowledged' {
    return this.inbox.acknowledge === 'client' ? 'acknowledged' : 'delivered';
  }

  /** Where a connection is to begin. What it waits for is before its answer begins, so a failure is still a status. */
  async beginning({ at, ...begin }: Begin, subscriber: string): Promise<{ position: bigint; unknownId?: string }> {
    return this.#options.turns.run(async () => {
      if (at === 'now') return { position: await this.inbox.end() };
      if (at === 'time') return { position: await this.inbox.before(subscriber, (begin as { time: Date }).time) };
      if (at === 'cursor') return { position: await this.receipts.cursor(this.cursorKind, subscriber) };
      const { id } = begin as { id: string };
      const seq = seqOf(this.inbox.id, id);
      // Ahead of the inbox: it was restored from a backup, say.
      if (seq !== undefined && (seq <= this.feed.end || seq <= (await this.inbox.end()))) return { position: seq };
      return { position: 0n, unknownId: id };
    });
  }

  /** Begins an answer that lasts. `position` and `unknownId` are what `beginning` gave. */
  open(opening: Opening, { position, unknownId }: { position: bigint; unknownId?: string }): Stream {
    const { subscriber, outlet, begin, wants, expiresAt } = opening;
    const { turns, maxBuffered } = this.#options;
    // Who has been given a part of what there is has not been given what is before.
    const moves = wants === undefined && (begin.at === 'cursor' || begin.at === 'id');
    const stream: Stream = new Stream({
      inboxId: this.inbox.id,
      subscriber,
      outlet,
      position,
      unknownId,
      wants: wants ?? (() => true),
      pageEvents,
      maxBuffered,
      read: seq => turns.run(() => this.inbox.of(subscriber, seq, pageEvents)),
      onWritten: (events, seq) => {
        this.counters.written += events;
        if (moves) this.receipts.delivered(subscriber, seq);
      },
      onClosed: reason => {
        this.counters.closed[reason]++;
        this.#expiries.delete(stream);
        this.feed.remove(stream);
      },
    });
    if (expiresAt !== undefined) this.#expiries.set(stream, expiresAt);
    this.feed.add(stream);
    stream.preface(retryFrame(someMs(leastRetryMs, mostRetryMs)));
    void stream.catchUp();
    return stream;
  }

  /** Ends what has expired, and what has not been taken by its client for `stallMs`. */
  sweep(stallMs: number, now = Date.now()): void {
    for (const [stream, at] of this.#expiries) if (at <= now) stream.end('expired');
    for (const stream of this.feed.streams()) {
      if (stream.blockedSince !== undefined && now - stream.blockedSince > stallMs) stream.end('slow');
    }
  }

  /** Ends all connections; each client is told another time to come back. */
  end(): void {
    for (const stream of [...this.feed.streams()]) {
      stream.preface(retryFrame(someMs(leastRetryMs, 2 * mostRetryMs)));
      stream.end('stopping');
    }
  }

  async stop(): Promise<void> {
    this.end();
    this.feed.stop();
    await this.receipts.flush();
  }
}

const someMs = (least: number, most: number): number => Math.round(least + Math.random() * (most - least));
