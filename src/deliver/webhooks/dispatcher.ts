// Sends an inbox's events to their endpoints, beside other processes that do the same.
//
//   lanes (leased) ─ events in order ─▶ queue by priority ─▶ request ─┬─ 2xx ──────────────▶ settled: the position moves on
//        ▲                                                            ├─ failed ───────────▶ retry of the event, or, in order
//        └─ holds: subscribers whose endpoint is blocked or full ◀────┘                      or blocked, hold of its subscriber
//
// Everything here is of one thread and waits for nothing but its own reads and requests; whatever changes calls `wake`. A
// request is begun only if its timeout is over before the lease of its lane, so none begins after a newer owner's is done.
// What may be sent, what has become of it and what is read next decide on the same cursors, holds and retries, and each on
// what the others did: one state machine in one file.
import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import type { Pool } from '../../postgres/pool.ts';
import { messageOf } from '../../runtime/errors.ts';
import { idOf } from '../frame.ts';
import type { Inbox } from '../inbox.ts';
import { type Cursor, classes, type Delivery, Hold, holdKey, type Lane, type Retry } from './cursor.ts';
import type { WebhookSettings } from './definition.ts';
import type { Endpoint } from './endpoint.ts';
import { Endpoints } from './endpoints.ts';
import { Leases } from './leases.ts';
import { Queue, type Verdict } from './queue.ts';
import type { Outcome, Sender } from './sender.ts';
import { Settlements } from './settlements.ts';
import { keyOf, type SigningKey } from './signature.ts';
import { Store, type StoredEvent } from './store.ts';

export interface DispatcherOptions {
  readonly pool: Pool;
  readonly logger: Logger;
  readonly inbox: Inbox;
  readonly settings: WebhookSettings;
  readonly sender: Sender;
  /** Looked up again now and then, so that a file may change. */
  readonly keys: () => readonly SigningKey[];
  /** Requests at once. */
  readonly workers: number;
  readonly leaseMs: number;
}

export interface WebhookStatus {
  readonly name: string;
  readonly lanes: number;
  readonly active: number;
  readonly queued: number;
  readonly retrying: number;
  readonly held: number;
  readonly open: number;
  readonly disabled: number;
  readonly delivered: number;
  readonly failed: number;
  readonly throttled: number;
  readonly dead: number;
  readonly expired: number;
  readonly unaddressed: number;
  readonly fenced: number;
  /** Of the inbox's ed25519 keys, for receivers. */
  readonly publicKeys: readonly string[];
}

const maxRoom = 256;
const leastRoom = 4;
const holdsAtOnce = 64;
const roomOfHold = 32;
const retriesAtOnce = 256;
/** An endpoint whose events wait in memory; beyond, its subscriber is passed over, so that others do not wait for it. */
const maxQueuedOfEndpoint = 64;
/** Beyond, nothing new is begun for the endpoint. */
const maxRetryingOfEndpoint = 1000;
const throttledMs = 5000;
const readAgainMs = 500;
/** How soon what finds no room is looked at again. */
const fullMs = 20;
const farAwayMs = 60_000;

export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #logger: Logger;
  readonly #store: Store;
  readonly #settlements: Settlements;
  readonly #leases: Leases;
  readonly #queue: Queue;
  readonly #ordered: boolean;
  readonly #room: number;
  readonly #endpoints: Endpoints;
  /** Subscribers with a request under way, where their order is kept. */
  readonly #busy = new Set<string>();
  readonly #counters = { delivered: 0, failed: 0, throttled: 0, dead: 0, expired: 0, unaddressed: 0, fenced: 0 };
  #active = 0;
  #queued = 0;
  #end = 0n;
  #reading = false;
  /** Nothing that waits for its time is due before. */
  #dueAt = 0;
  #awake = false;
  #timer: NodeJS.Timeout | undefined;
  #draining = false;
  #stopped = false;
  #idle: () => void = () => {};

  constructor(options: DispatcherOptions) {
    const { inbox, pool, logger, settings, workers, leaseMs } = options;
    this.#options = options;
    this.#logger = logger.child({ inbox: inbox.name });
    this.#store = new Store(inbox, pool, randomUUID());
    this.#endpoints = new Endpoints(this.#store, settings.breaker);
    this.#queue = new Queue(workers);
    this.#ordered = settings.order === 'subscriber';
    this.#room = Math.max(64, 2 * workers);
    this.#settlements = new Settlements({
      store: this.#store,
      logger: this.#logger,
      onStored: (delivered, dead) => {
        this.#counters.delivered += delivered;
        this.#counters.dead += dead;
        this.wake();
      },
      onRefused: (lane, completions) => {
        this.#counters.fenced += completions;
        this.#leases.lose(lane);
      },
    });
    this.#leases = new Leases({
      store: this.#store,
      logger: this.#logger,
      leaseMs,
      ordered: this.#ordered,
      isIdle: lane => lane.active === 0 && !this.#settlements.has(lane),
      onChange: () => {
        this.#dueAt = 0;
        this.wake();
      },
    });
  }

  start(): void {
    this.#leases.start();
  }

  /** The inbox has come so far. */
  reached(end: bigint): void {
    if (end <= this.#end) return;
    this.#end = end;
    this.wake();
  }

  /** Endpoints are others, lanes are free, or events are to be tried again. */
  async changed(): Promise<void> {
    if (this.#draining) return;
    this.#leases.look();
    try {
      if (await this.#endpoints.look()) this.#unpark();
      await this.#settlements.exclusively(() => this.#lookAtRetries());
    } catch (error) {
      this.#logger.warn({ error: messageOf(error) }, 'endpoints and redriven events could not be read');
    }
    this.wake();
  }

  /** Begins no more, waits for what is under way, and leaves its lanes to others. */
  async drain(): Promise<void> {
    this.#draining = true;
    if (this.#active > 0) {
      await new Promise<void>(resolve => {
        this.#idle = resolve;
      });
    }
    if (!this.#stopped) await this.#release();
  }

  /** What is still under way counts as not sent. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#draining = true;
    if (!this.#leases.released) await this.#release();
    this.#stopped = true;
    this.#idle();
    clearTimeout(this.#timer);
    this.#settlements.stop();
  }

  async #release(): Promise<void> {
    await this.#settlements.flush();
    await this.#leases.release();
  }

  status(): WebhookStatus {
    const lanes = this.#leases.lanes;
    const sum = (count: (lane: Lane) => number) => lanes.reduce((total, lane) => total + count(lane), 0);
    return {
      name: this.#options.inbox.name,
      lanes: lanes.length,
      active: this.#active,
      queued: this.#queued,
      retrying: sum(({ retries }) => retries.size),
      held: sum(({ holds }) => holds.size),
      open: this.#endpoints.count('open'),
      disabled: this.#endpoints.count('disabled'),
      ...this.#counters,
      publicKeys: this.#options.keys().flatMap(({ publicKey }) => publicKey ?? []),
    };
  }

  wake(): void {
    if (this.#awake || this.#stopped) return;
    this.#awake = true;
    setImmediate(() => {
      this.#awake = false;
      this.#turn();
    });
  }

  #turn(): void {
    if (this.#stopped) return;
    if (!this.#draining) {
      const { workers } = this.#options;
      for (;;) {
        const next = this.#active < workers ? this.#queue.take(delivery => this.#judge(delivery)) : undefined;
        if (next === undefined) break;
        this.#begin(next);
      }
      if (!this.#reading && this.#wantsMore()) void this.#read();
      const now = performance.now();
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.wake(), Math.min(Math.max(this.#dueAt - now, 1), farAwayMs));
    } else if (this.#active === 0) {
      this.#idle();
    }
    this.#leases.passOn();
  }

  // What may be sent -------------------------------------------------------------------------------------------------------

  #judge(delivery: Delivery): Verdict {
    const verdict = this.#verdict(delivery, performance.now());
    if (verdict === 'remove') this.#left(delivery);
    return verdict;
  }

  #verdict(delivery: Delivery, now: number): Verdict {
    const { lane, endpoint, discarded, event, cursor, retry } = delivery;
    if (discarded || lane.lost || lane.draining) return 'remove';
    if (endpoint.removed) {
      this.#pass(delivery, 'unaddressed');
      return 'remove';
    }
    if (now + this.#options.settings.timeout > lane.validUntil) return 'wait';
    if (this.#ordered && this.#busy.has(event.subscriber)) return 'wait';
    let until = endpoint.blockedUntil(now);
    if (until === undefined && retry === undefined && endpoint.retrying >= maxRetryingOfEndpoint)
      until = now + throttledMs;
    if (until !== undefined) {
      this.#dueBy(until);
      if (retry !== undefined) {
        retry.taken = false;
        retry.parked = true;
        retry.nextAt = until;
        return 'remove';
      }
      if (cursor instanceof Hold) {
        cursor.goBack(event.seq);
        cursor.park(endpoint, until);
        return 'remove';
      }
      // Of a common endpoint too: what waits for it must not keep the lane from what is for others.
      this.#hold(cursor!, event.subscriber, event.seq - 1n).park(endpoint, until);
      return 'remove';
    }
    return endpoint.active >= this.#options.settings.concurrency ? 'wait' : 'start';
  }

  /** From now on the subscriber is worked off by itself, from behind `position` on. */
  #hold(main: Cursor, subscriber: string, position: bigint): Hold {
    for (const [seq, delivery] of main.pending) {
      if (seq <= position || delivery.started || delivery.event.subscriber !== subscriber) continue;
      delivery.discarded = true;
      main.pending.delete(seq);
    }
    const { lane } = main;
    let hold = lane.holds.get(holdKey(main.class, subscriber));
    if (hold === undefined) {
      hold = new Hold(main, subscriber, position);
      lane.holds.set(hold.key, hold);
    } else if (position < hold.from) {
      hold.goBack(position + 1n);
    }
    this.#settlements.moved(hold);
    this.#settlements.moved(main);
    this.#dueAt = 0;
    return hold;
  }

  #left({ endpoint }: Delivery): void {
    endpoint.queued--;
    this.#queued--;
  }

  #begin(delivery: Delivery): void {
    const { endpoint, lane, event, attempts } = delivery;
    this.#left(delivery);
    delivery.started = true;
    endpoint.begin();
    lane.active++;
    this.#active++;
    if (this.#ordered) this.#busy.add(event.subscriber);
    const { sender, settings, keys, inbox } = this.#options;
    const own = endpoint.secrets.flatMap(secret => keyOf(secret) ?? []);
    const message = {
      id: idOf(inbox.id, event.seq),
      body: event.data,
      headers: {
        'content-type': settings.contentType,
        'millrace-event-id': headerOf(event.eventId),
        'millrace-subscriber': headerOf(event.subscriber),
        'millrace-topic': event.topic,
        'millrace-attempt': String(attempts + 1),
        ...(event.type === null ? {} : { 'millrace-event-type': headerOf(event.type) }),
      },
    };
    void sender
      .send(endpoint.url, own.length > 0 ? own : keys(), message, settings.timeout)
      .then(outcome => this.#ended(delivery, outcome));
  }

  // What has become of it ---------------------------------------------------------------------------------------------------

  #ended(delivery: Delivery, outcome: Outcome): void {
    const { endpoint, lane, event } = delivery;
    this.#queue.ended(delivery);
    endpoint.end();
    lane.active--;
    this.#active--;
    this.#busy.delete(event.subscriber);
    this.wake();
    if (this.#stopped || this.#leases.released) return;
    this.#noteOf(endpoint, outcome);
    if (lane.lost) {
      // Another process has the lane, and will do or has done this event.
      if (outcome.kind === 'delivered') this.#counters.fenced++;
      return;
    }
    if (outcome.kind === 'delivered') {
      this.#settlements.delivered(lane);
      this.#settled(delivery);
    } else if (outcome.kind === 'failed') {
      this.#failed(delivery, outcome);
    } else {
      this.#again(delivery, delivery.attempts, endpoint.blockedUntil(performance.now()) ?? 0, outcome.reason, true);
    }
  }

  #noteOf(endpoint: Endpoint, outcome: Outcome): void {
    const now = performance.now();
    if (outcome.kind === 'delivered') {
      if (endpoint.succeeded()) this.#unpark();
    } else if (outcome.kind === 'failed') {
      this.#counters.failed++;
      endpoint.failed(now);
      if (outcome.retryAfterMs !== undefined) endpoint.throttled(now, outcome.retryAfterMs);
    } else if (outcome.kind === 'throttled') {
      this.#counters.throttled++;
      endpoint.throttled(now, outcome.retryAfterMs ?? throttledMs);
    } else {
      endpoint.disable();
      this.#logger.warn({ endpoint: endpoint.id }, 'an endpoint answered 410 and is disabled');
      this.#store.disable(endpoint.id, endpoint.url, outcome.reason).catch((error: Error) => {
        this.#logger.warn({ endpoint: endpoint.id, error: error.message }, 'an endpoint could not be disabled yet');
      });
    }
  }

  #failed(delivery: Delivery, { code, reason, retryAfterMs = 0 }: Outcome & { kind: 'failed' }): void {
    const { retries } = this.#options.settings;
    const attempts = delivery.attempts + 1;
    const wait = retries[attempts - 1];
    if (wait === undefined) {
      const { lane, event, endpoint } = delivery;
      this.#settlements.dead(lane, { seq: event.seq, attempts, code, reason, endpoint: endpoint.id });
      this.#settled(delivery);
      return;
    }
    const at = performance.now() + Math.max(wait * (0.8 + Math.random() * 0.4), retryAfterMs);
    this.#again(delivery, attempts, at, `${code}: ${reason}`, false);
  }

  /** The event comes again at `nextAt`; in order, what is behind it waits. */
  #again(delivery: Delivery, attempts: number, nextAt: number, reason: string, parked: boolean): void {
    const { event, cursor, lane, endpoint } = delivery;
    this.#dueBy(nextAt);
    if (cursor !== undefined && this.#ordered) {
      const hold = cursor instanceof Hold ? cursor : this.#hold(cursor, event.subscriber, event.seq - 1n);
      if (cursor instanceof Hold) hold.goBack(event.seq);
      else this.#settled(delivery);
      Object.assign(hold, { attempts, nextAt, parked });
      this.#settlements.moved(hold);
      return;
    }
    let { retry } = delivery;
    if (retry === undefined) {
      retry = { seq: event.seq, lane, attempts, nextAt, parked, taken: false, endpoint, reason };
      lane.retries.set(event.seq, retry);
      endpoint.retrying++;
      this.#settled(delivery);
    } else {
      Object.assign(retry, { attempts, nextAt, parked, reason, taken: false });
    }
    this.#settlements.retry(retry);
  }

  /** Nothing is to be done for the event any more, or something else stands for it. */
  #settled(delivery: Delivery): void {
    const { cursor, retry, event } = delivery;
    if (retry !== undefined) this.#forget(retry);
    if (cursor === undefined) return;
    cursor.pending.delete(event.seq);
    if (cursor instanceof Hold) {
      cursor.attempts = 0;
      this.#letGo(cursor);
    }
    this.#settlements.moved(cursor);
  }

  #forget(retry: Retry): void {
    if (retry.endpoint !== undefined) retry.endpoint.retrying--;
    retry.lane.retries.delete(retry.seq);
    this.#settlements.retryDone(retry);
  }

  #pass(delivery: Delivery, counter: 'expired' | 'unaddressed'): void {
    this.#counters[counter]++;
    this.#settled(delivery);
  }

  /** Where a subscriber has caught up with its lane, the lane has it again. */
  #letGo(hold: Hold): void {
    const main = hold.lane.cursors[hold.class]!;
    if (hold.pending.size > 0 || hold.attempts > 0) return;
    if (hold.scanned >= main.scanned) {
      hold.lane.holds.delete(hold.key);
      this.#settlements.holdGone(hold);
    } else {
      this.#dueAt = 0;
    }
  }

  // Reading ---------------------------------------------------------------------------------------------------------------

  #dueBy(at: number): void {
    if (at < this.#dueAt) this.#dueAt = at;
  }

  #openCursors(): Cursor[] {
    return this.#leases.lanes.flatMap(lane =>
      lane.draining
        ? []
        : lane.cursors.filter(
            cursor => cursor.scanned < this.#end && this.#queue.lengthOf(this.#classOf(cursor.class)) < this.#room,
          ),
    );
  }

  /** Where order is kept there are no classes. */
  #classOf(class_: number): number {
    return this.#ordered ? classes - 1 : class_;
  }

  #wantsMore(): boolean {
    return this.#dueAt <= performance.now() || this.#openCursors().length > 0;
  }

  async #read(): Promise<void> {
    this.#reading = true;
    try {
      await this.#readLanes();
      if (this.#dueAt <= performance.now()) await this.#readDue();
      this.#endpoints.forget();
    } catch (error) {
      if (!this.#stopped) this.#logger.warn({ error: messageOf(error) }, 'events could not be read; trying again');
      await new Promise(resolve => setTimeout(resolve, readAgainMs));
    } finally {
      this.#reading = false;
      this.wake();
    }
  }

  async #readLanes(): Promise<void> {
    const end = this.#end;
    const cursors = this.#openCursors();
    if (cursors.length === 0) return;
    const room = Math.min(Math.max(Math.ceil((this.#room * 2) / cursors.length), leastRoom), maxRoom);
    const pages = await this.#store.ofLanes(cursors, room, this.#ordered);
    for (const [i, { events, full }] of pages.entries()) {
      const cursor = cursors[i]!;
      if (cursor.lane.lost) continue;
      for (const event of events) {
        cursor.scanned = event.seq;
        this.#takeUp(event, cursor, undefined);
      }
      if (!full && cursor.scanned < end) cursor.scanned = end;
    }
  }

  /** Subscribers that are passed over, and events to be tried again, whose time has come. */
  async #readDue(): Promise<void> {
    const now = performance.now();
    const holds: Hold[] = [];
    const retries: Retry[] = [];
    let next = Number.POSITIVE_INFINITY;
    const wait = (at: number): void => {
      if (at < next) next = at;
    };
    for (const lane of this.#leases.lanes) {
      if (lane.draining) continue;
      for (const hold of lane.holds.values()) {
        if (hold.pending.size > 0) continue;
        hold.stayParked(now);
        if (hold.nextAt > now) wait(hold.nextAt);
        else if (holds.length < holdsAtOnce && this.#queued < classes * this.#room) holds.push(hold);
        else wait(now + fullMs);
      }
      for (const retry of lane.retries.values()) {
        if (retry.taken) continue;
        if (retry.nextAt > now) wait(retry.nextAt);
        else if (retries.length < retriesAtOnce) retries.push(retry);
        else wait(now + fullMs);
      }
    }
    this.#dueAt = next;
    if (holds.length > 0) await this.#readHolds(holds);
    if (retries.length > 0) await this.#readRetries(retries);
  }

  async #readHolds(holds: readonly Hold[]): Promise<void> {
    const after = holds.map(({ scanned }) => scanned);
    const pages = await this.#store.ofHolds(holds, roomOfHold, this.#ordered);
    for (const [i, { events, full }] of pages.entries()) {
      const hold = holds[i]!;
      // Set back meanwhile, or let go of.
      if (hold.lane.lost || hold.lane.holds.get(hold.key) !== hold || hold.scanned !== after[i]) continue;
      hold.parked = false;
      // What its lane has not come to yet is its lane's.
      const last = hold.lane.cursors[hold.class]!.scanned;
      const own = events.filter(({ seq }) => seq <= last);
      for (const event of own) {
        hold.scanned = event.seq;
        this.#takeUp(event, hold, undefined);
      }
      if ((!full || own.length < events.length) && hold.scanned < last) hold.scanned = last;
      this.#letGo(hold);
    }
  }

  async #readRetries(retries: readonly Retry[]): Promise<void> {
    const found = await this.#store.bySeq(retries.map(({ seq }) => seq));
    for (const retry of retries) {
      if (retry.lane.lost || retry.taken || retry.lane.retries.get(retry.seq) !== retry) continue;
      const event = found.get(retry.seq);
      if (event === undefined) {
        this.#counters.expired++;
        this.#forget(retry);
      } else {
        this.#takeUp(event, undefined, retry);
      }
    }
  }

  #takeUp(event: StoredEvent, cursor: Cursor | undefined, retry: Retry | undefined): void {
    const lane = cursor?.lane ?? retry!.lane;
    const main = cursor !== undefined && !(cursor instanceof Hold);
    const endpoint = event.endpoint && this.#endpoints.of(event.endpoint);
    const hold = main ? lane.holds.get(holdKey(cursor.class, event.subscriber)) : undefined;
    if (hold !== undefined && event.seq > hold.from) {
      this.#settlements.moved(hold.lane.cursors[hold.class]!);
      return;
    }
    if (endpoint === undefined || event.expired) {
      this.#counters[endpoint === undefined ? 'unaddressed' : 'expired']++;
      if (retry !== undefined) this.#forget(retry);
      if (cursor !== undefined) this.#settlements.moved(cursor);
      return;
    }
    if (main && endpoint.own && endpoint.queued >= maxQueuedOfEndpoint) {
      this.#hold(cursor, event.subscriber, event.seq - 1n);
      return;
    }
    const attempts = retry?.attempts ?? (cursor instanceof Hold && cursor.pending.size === 0 ? cursor.attempts : 0);
    const delivery: Delivery = {
      ...{ event, endpoint, lane, cursor, retry, attempts },
      ...{ class: this.#classOf(event.class), started: false, discarded: false },
    };
    cursor?.pending.set(event.seq, delivery);
    if (retry !== undefined) {
      retry.taken = true;
      retry.parked = false;
      if (retry.endpoint === undefined) endpoint.retrying++;
      retry.endpoint = endpoint;
    }
    endpoint.queued++;
    this.#queued++;
    this.#queue.push(delivery);
  }

  /** What waits for its endpoint looks whether it is answered again. */
  #unpark(): void {
    for (const lane of this.#leases.lanes) {
      for (const hold of lane.holds.values()) if (hold.parked) hold.nextAt = 0;
      for (const retry of lane.retries.values()) if (retry.parked) retry.nextAt = 0;
    }
    this.#dueAt = 0;
  }

  /** Events that were redriven have rows that this process did not write. */
  async #lookAtRetries(): Promise<void> {
    const lanes = new Map(this.#leases.lanes.map(lane => [lane.id, lane]));
    if (lanes.size === 0) return;
    for (const { lane: id, seq, attempts, wait } of await this.#store.retries([...lanes.keys()])) {
      const lane = lanes.get(id)!;
      if (lane.lost || lane.retries.has(seq) || this.#settlements.knows(lane, seq)) continue;
      const nextAt = performance.now() + wait;
      lane.retries.set(seq, {
        ...{ seq, lane, attempts, nextAt, parked: false, taken: false, endpoint: undefined, reason: 'redriven' },
      });
      this.#dueBy(nextAt);
    }
  }
}

/** What a header may not hold goes percent-encoded. */
const headerOf = (text: string): string => (/^[\x20-\x7e]*$/.test(text) ? text : encodeURIComponent(text));
