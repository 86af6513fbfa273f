// One connection of a subscriber. It reads what it has missed from the inbox, in pages, while what arrives meanwhile is
// kept for it; at the seam what it has already had is left out. Then it is live.
//
//   catching up ──▶ live ──▶ catching up (it takes less than it is sent: it reads the rest when it has drained)
//        └────────────┴──▶ closed       (it does not drain, its token ends, Millrace stops)
import { eventFrame, gapFrame, heartbeat, idOf } from './frame.ts';
import type { InboxEvent, InboxRead } from './inbox.ts';
import type { Outlet } from './outlet.ts';

export interface StreamOptions {
  readonly inboxId: number;
  readonly subscriber: string;
  readonly outlet: Outlet;
  /** The last event that the client has. */
  readonly position: bigint;
  /** An id that the client gave and that says nothing here: told as a gap. */
  readonly unknownId: string | undefined;
  readonly wants: (event: InboxEvent) => boolean;
  /** Reads what the subscriber has after a number. May wait for its turn. */
  readonly read: (seq: bigint) => Promise<InboxRead>;
  /** How many events `read` gives at most. */
  readonly pageEvents: number;
  /** Bytes that may wait for the client. */
  readonly maxBuffered: number;
  /** Everything up to `seq` has been handed to the operating system. */
  readonly onWritten: (events: number, seq: bigint) => void;
  /** Once. */
  readonly onClosed: (reason: CloseReason) => void;
}

export type CloseReason = 'client' | 'slow' | 'expired' | 'stopping' | 'failed';

/** Kept for a connection that catches up; one that falls behind further reads them from the inbox. */
const maxKept = 1000;

export class Stream {
  readonly #options: StreamOptions;
  #position: bigint;
  #unknownId: string | undefined;
  #live = false;
  #closed = false;
  #kept: InboxEvent[] | undefined;
  /** Since when it has not taken what was written, ms; undefined while it does. */
  #blockedSince: number | undefined;
  #drained: () => void = () => {};

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#position = options.position;
    this.#unknownId = options.unknownId;
    const { outlet } = options;
    outlet.on('close', () => this.#close('client'));
    outlet.on('drain', () => {
      this.#blockedSince = undefined;
      this.#drained();
    });
  }

  get subscriber(): string {
    return this.#options.subscriber;
  }

  get live(): boolean {
    return this.#live;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Since when the client has not taken what was written to it. */
  get blockedSince(): number | undefined {
    return this.#blockedSince;
  }

  /** What has been committed of this subscriber, in order; `frames` are theirs, made once for all its connections. */
  offer(events: readonly InboxEvent[], frames: readonly string[]): void {
    if (this.#closed) return;
    if (!this.#live) {
      if (this.#kept === undefined) return;
      if (this.#kept.length + events.length > maxKept) this.#kept = undefined;
      else this.#kept.push(...events);
      return;
    }
    let text = '';
    let count = 0;
    for (let i = 0; i < events.length; i++) {
      const event = events[i]!;
      if (event.seq <= this.#position) continue;
      this.#position = event.seq;
      if (!this.#wants(event)) continue;
      text += frames[i];
      count++;
    }
    if (text !== '') this.#write(text, count);
    if (this.#blockedSince !== undefined && this.#options.outlet.waiting > this.#options.maxBuffered) {
      this.#live = false;
      void this.catchUp();
    }
  }

  /** Reads what is missing until nothing is, then goes live. */
  async catchUp(): Promise<void> {
    try {
      for (;;) {
        await this.#untilDrained();
        if (this.#closed) return;
        this.#kept = [];
        const { events, firstSeq } = await this.#options.read(this.#position);
        if (this.#closed) return;
        this.#tellGap(firstSeq);
        this.#take(events);
        if (events.length === this.#options.pageEvents) continue;
        const kept = this.#kept;
        this.#kept = undefined;
        if (kept === undefined) continue; // more came than is kept
        this.#live = true;
        this.#take(kept);
        return;
      }
    } catch {
      this.end('failed'); // the client comes back with its last id
    }
  }

  beat(): void {
    if (!this.#closed && this.#blockedSince === undefined) this.#send(heartbeat);
  }

  /** Ends the answer, as a client expects that is to come back. */
  end(reason: CloseReason): void {
    if (this.#closed) return;
    const { outlet } = this.#options;
    this.#close(reason);
    if (reason === 'slow') outlet.destroy();
    else outlet.end();
  }

  /** A raw line before events. */
  preface(text: string): void {
    this.#send(text);
  }

  #wants(event: InboxEvent): boolean {
    return (event.expires === null || event.expires > Date.now()) && this.#options.wants(event);
  }

  #take(events: readonly InboxEvent[]): void {
    let text = '';
    let count = 0;
    for (const event of events) {
      if (event.seq <= this.#position) continue;
      this.#position = event.seq;
      if (!this.#wants(event)) continue;
      text += eventFrame(this.#options.inboxId, event);
      count++;
    }
    if (text !== '') this.#write(text, count);
  }

  /** Parts may have been dropped after what the client has, before it connected or while it was slow. */
  #tellGap(firstSeq: bigint): void {
    const { inboxId } = this.#options;
    if (this.#unknownId === undefined && this.#position >= firstSeq - 1n) return;
    this.#send(gapFrame(inboxId, this.#unknownId ?? idOf(inboxId, this.#position), firstSeq));
    this.#unknownId = undefined;
    if (this.#position < firstSeq - 1n) this.#position = firstSeq - 1n;
  }

  #write(text: string, events: number): void {
    const seq = this.#position;
    const { outlet, onWritten } = this.#options;
    const taken = outlet.write(text, error => {
      if (!error) onWritten(events, seq);
    });
    if (!taken) this.#blockedSince ??= Date.now();
  }

  #send(text: string): void {
    if (!this.#options.outlet.write(text)) this.#blockedSince ??= Date.now();
  }

  async #untilDrained(): Promise<void> {
    while (this.#blockedSince !== undefined && !this.#closed) {
      await new Promise<void>(resolve => {
        this.#drained = resolve;
      });
    }
  }

  #close(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#live = false;
    this.#kept = undefined;
    this.#drained();
    this.#options.onClosed(reason);
  }
}
