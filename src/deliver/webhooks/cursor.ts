// How far a lane, or a subscriber that its lane passes over, has come. Events are taken up in order and settled in any;
// the position, behind which everything is settled, is what is stored.
import type { Endpoint } from './endpoint.ts';
import type { StoredEvent } from './store.ts';

/** LOW, MEDIUM, HIGH: places in lists. */
export const classes = 3;

/** An event in memory, on its way to its receiver. */
export interface Delivery {
  readonly event: StoredEvent;
  readonly endpoint: Endpoint;
  readonly lane: Lane;
  /** Of the queue. */
  readonly class: number;
  /** Undefined for one that is tried again by itself. */
  readonly cursor: Cursor | undefined;
  readonly retry: Retry | undefined;
  /** That have failed. */
  readonly attempts: number;
  started: boolean;
  /** Its cursor has been set back, and will take it up again. */
  discarded: boolean;
}

/** Behind its lane's position, to be tried again. Times are of performance.now(). */
export interface Retry {
  readonly seq: bigint;
  readonly lane: Lane;
  attempts: number;
  nextAt: number;
  /** It waits for its endpoint, not for its time. */
  parked: boolean;
  taken: boolean;
  endpoint: Endpoint | undefined;
  reason: string;
}

export class Cursor {
  readonly lane: Lane;
  /** 0 in an inbox that keeps each subscriber's order: then it stands for all. */
  readonly class: number;
  /** Rows up to here have been taken up. */
  scanned: bigint;
  stored: bigint;
  readonly pending = new Map<bigint, Delivery>();

  constructor(lane: Lane, class_: number, position: bigint) {
    this.lane = lane;
    this.class = class_;
    this.scanned = position;
    this.stored = position;
  }

  get position(): bigint {
    for (const seq of this.pending.keys()) return seq - 1n;
    return this.scanned;
  }
}

/** A subscriber that its lane passes over from `from` on. */
export class Hold extends Cursor {
  readonly subscriber: string;
  /** What its lane takes up behind this is its. */
  from: bigint;
  /** Of the first event behind the position. */
  attempts = 0;
  nextAt = 0;
  parked = false;
  /** That it is parked for. */
  #endpoint: Endpoint | undefined;

  constructor(main: Cursor, subscriber: string, position: bigint) {
    super(main.lane, main.class, position);
    this.subscriber = subscriber;
    this.from = position;
  }

  /** Goes back to before `seq`: what has not been started from there on is taken up again. */
  goBack(seq: bigint): void {
    for (const [at, delivery] of this.pending) {
      if (at < seq || (delivery.started && at > seq)) continue;
      delivery.discarded = true;
      this.pending.delete(at);
    }
    this.scanned = seq - 1n;
    if (this.from > this.scanned) this.from = this.scanned;
  }

  /** Waits for its endpoint. */
  park(endpoint: Endpoint, until: number): void {
    this.#endpoint = endpoint;
    this.parked = true;
    this.nextAt = until;
  }

  /** Where another subscriber's event has found the endpoint blocked again, this need not be read to learn it. */
  stayParked(now: number): void {
    const until = this.parked && this.nextAt <= now ? this.#endpoint?.blockedUntil(now) : undefined;
    if (until !== undefined) this.nextAt = until;
  }

  get key(): string {
    return holdKey(this.class, this.subscriber);
  }
}

export const holdKey = (class_: number, subscriber: string): string => `${class_}/${subscriber}`;

/** A lane that this process has the lease of. */
export class Lane {
  readonly id: number;
  readonly epoch: bigint;
  /** By class; one where each subscriber's order is kept. */
  readonly cursors: Cursor[] = [];
  readonly holds = new Map<string, Hold>();
  readonly retries = new Map<bigint, Retry>();
  /** Requests under way. */
  active = 0;
  /** Until when the lease certainly lasts, of performance.now(). */
  validUntil = 0;
  /** To be given to another process: nothing more is begun. */
  draining = false;
  lost = false;

  constructor(id: number, epoch: bigint) {
    this.id = id;
    this.epoch = epoch;
  }
}
