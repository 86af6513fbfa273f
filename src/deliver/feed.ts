// What arrives in an inbox, given to the connections that this process has: read once for all of them. Where the process
// fills the inbox itself nothing is read; else a notification says how far it has come.
import type { Logger } from 'pino';
import { messageOf } from '../runtime/errors.ts';
import { eventFrame } from './frame.ts';
import type { Inbox, InboxEvent } from './inbox.ts';
import type { Stream } from './stream.ts';

const pageEvents = 2000;
const retryMs = 500;

export class Feed {
  readonly #inbox: Inbox;
  readonly #logger: Logger;
  readonly #streams = new Map<string, Set<Stream>>();
  #size = 0;
  /** Rows up to here have been given to the connections that were there. */
  #position: bigint;
  #end: bigint;
  #reading = false;
  #retry: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(inbox: Inbox, logger: Logger, end: bigint) {
    this.#inbox = inbox;
    this.#logger = logger;
    this.#position = end;
    this.#end = end;
  }

  get size(): number {
    return this.#size;
  }

  /** The last row that is known to be there. */
  get end(): bigint {
    return this.#end;
  }

  connectionsOf(subscriber: string): number {
    return this.#streams.get(subscriber)?.size ?? 0;
  }

  *streams(): Iterable<Stream> {
    for (const streams of this.#streams.values()) yield* streams;
  }

  /** From now on the stream is offered what arrives. */
  add(stream: Stream): void {
    let streams = this.#streams.get(stream.subscriber);
    if (streams === undefined) {
      streams = new Set();
      this.#streams.set(stream.subscriber, streams);
    }
    streams.add(stream);
    this.#size++;
  }

  remove(stream: Stream): void {
    const streams = this.#streams.get(stream.subscriber);
    if (!streams?.delete(stream)) return;
    this.#size--;
    if (streams.size === 0) this.#streams.delete(stream.subscriber);
  }

  /** Rows that this process has appended, up to `end`. */
  offer(events: readonly InboxEvent[], end: bigint): void {
    if (events[0] === undefined || events[0].seq !== this.#position + 1n) {
      this.reached(end);
      return;
    }
    this.#give(events);
    this.#position = end;
    if (end > this.#end) this.#end = end;
  }

  /** The inbox has come so far. */
  reached(end: bigint): void {
    if (end > this.#end) this.#end = end;
    if (!this.#reading) void this.#read();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
  }

  async #read(): Promise<void> {
    this.#reading = true;
    try {
      while (this.#position < this.#end && !this.#stopped) {
        // Who comes later reads from the inbox what was there before.
        if (this.#size === 0) {
          this.#position = this.#end;
          break;
        }
        const { events, firstSeq } = await this.#inbox.after(this.#position, pageEvents);
        const last = events.at(-1);
        if (last !== undefined) {
          this.#give(events);
          this.#position = last.seq;
        } else if (this.#position < firstSeq - 1n) {
          this.#position = firstSeq - 1n;
        } else {
          this.#inbox.expectPart();
          throw new Error(`rows up to ${this.#end} are not there, only up to ${this.#position}`);
        }
      }
    } catch (error) {
      this.#logger.warn(
        { inbox: this.#inbox.name, error: messageOf(error) },
        'an inbox could not be read; trying again',
      );
      this.#retry = setTimeout(() => this.reached(this.#end), retryMs);
    } finally {
      this.#reading = false;
    }
  }

  #give(events: readonly InboxEvent[]): void {
    if (this.#size === 0) return;
    const found = new Map<string, { events: InboxEvent[]; frames: string[] }>();
    for (const event of events) {
      if (event.subscriber === null || !this.#streams.has(event.subscriber)) continue;
      let own = found.get(event.subscriber);
      if (own === undefined) {
        own = { events: [], frames: [] };
        found.set(event.subscriber, own);
      }
      own.events.push(event);
      own.frames.push(eventFrame(this.#inbox.id, event));
    }
    for (const [subscriber, own] of found) {
      for (const stream of [...(this.#streams.get(subscriber) ?? [])]) stream.offer(own.events, own.frames);
    }
  }
}
