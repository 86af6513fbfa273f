// Which lanes of an inbox this process works off. A lease is a row of kafka.webhook_lanes with an owner, an epoch and the
// time at which it ends by the database's clock; the epoch rises with each new owner and is the fencing token of all that
// is written for the lane. Renewed every third of its time. Processes share the lanes evenly: who has more than its share
// drains the rest and gives it back; who has less takes what is free, and what has expired. Its end is counted here from
// before the request that renewed it, so this process believes in it for less time than the others do.
import type { Logger } from 'pino';
import { messageOf } from '../../runtime/errors.ts';
import { Cursor, classes, Hold, Lane } from './cursor.ts';
import type { LeasedLane, Store, StoredLane } from './store.ts';

export interface LeasesOptions {
  readonly store: Store;
  readonly logger: Logger;
  readonly leaseMs: number;
  /** One position for all classes. */
  readonly ordered: boolean;
  /** Nothing of the lane is under way, and nothing still to be stored. */
  readonly isIdle: (lane: Lane) => boolean;
  readonly onChange: () => void;
}

/** Signals come in bursts. */
const lookMs = 100;

export class Leases {
  readonly #options: LeasesOptions;
  readonly #lanes = new Map<number, Lane>();
  #timer: NodeJS.Timeout | undefined;
  #soon: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;
  released = false;

  constructor(options: LeasesOptions) {
    this.#options = options;
  }

  get lanes(): readonly Lane[] {
    return [...this.#lanes.values()];
  }

  start(): void {
    void this.#renew();
  }

  /** There may be some to be had. */
  look(): void {
    if (this.#stopped) return;
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      // What is under way may have looked before there was something to see.
      if (this.#running !== undefined) void this.#running.then(() => this.look());
      else void this.#renew();
    }, lookMs);
  }

  /** Gives back what has been drained. */
  passOn(): void {
    if (this.#running !== undefined || this.#soon !== undefined) return;
    if (this.lanes.some(lane => lane.draining && this.#options.isIdle(lane))) this.look();
  }

  lose(lane: Lane): void {
    lane.lost = true;
    for (const retry of lane.retries.values()) if (retry.endpoint !== undefined) retry.endpoint.retrying--;
    lane.retries.clear();
    if (this.#lanes.get(lane.id) === lane) this.#lanes.delete(lane.id);
  }

  async release(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#soon);
    await this.#running;
    if (this.released) return;
    this.released = true;
    try {
      await this.#options.store.release();
    } catch (error) {
      this.#options.logger.warn({ error: messageOf(error) }, 'lanes could not be given back; they expire');
    }
    for (const lane of this.lanes) this.lose(lane);
  }

  #renew(): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    this.#running ??= this.#exchange().finally(() => {
      this.#running = undefined;
      clearTimeout(this.#timer);
      if (!this.#stopped) this.#timer = setTimeout(() => void this.#renew(), this.#options.leaseMs / 3);
    });
    return this.#running;
  }

  async #exchange(): Promise<void> {
    const { store, logger, leaseMs, isIdle, onChange } = this.#options;
    const drained = this.lanes.filter(lane => lane.draining && isIdle(lane));
    for (const lane of drained) this.lose(lane);
    const held = this.lanes;
    const askedAt = performance.now();
    try {
      const rows = await store.lease(
        leaseMs,
        held,
        drained.map(({ id }) => id),
      );
      const renewed = new Set(rows.filter(({ fresh }) => !fresh).map(({ lane }) => lane));
      for (const lane of held) {
        if (renewed.has(lane.id)) lane.validUntil = askedAt + leaseMs;
        else this.lose(lane);
      }
      await this.#take(
        rows.filter(({ fresh }) => fresh),
        askedAt + leaseMs,
      );
      const surplus = this.#lanes.size - (rows[0]?.share ?? this.#lanes.size);
      for (const lane of this.lanes.toReversed().slice(0, Math.max(surplus, 0))) lane.draining = true;
    } catch (error) {
      if (!this.#stopped) logger.warn({ error: messageOf(error) }, 'leases could not be renewed; trying again');
    }
    onChange();
  }

  async #take(leased: readonly LeasedLane[], validUntil: number): Promise<void> {
    if (leased.length === 0) return;
    for (const { lane } of leased) {
      const before = this.#lanes.get(lane);
      if (before !== undefined) this.lose(before);
    }
    const stored = await this.#options.store.load(leased.map(({ lane }) => lane));
    for (const { lane: id, epoch } of leased) {
      const lane = new Lane(id, epoch);
      lane.validUntil = validUntil;
      this.#fill(lane, stored.get(id)!);
      this.#lanes.set(id, lane);
    }
  }

  #fill(lane: Lane, { positions, retries, holds }: StoredLane): void {
    const now = performance.now();
    for (let class_ = 0; class_ < (this.#options.ordered ? 1 : classes); class_++) {
      lane.cursors.push(new Cursor(lane, class_, positions[class_]!));
    }
    for (const { seq, attempts, wait } of retries) {
      const known = { parked: false, taken: false, endpoint: undefined, reason: '' };
      lane.retries.set(seq, { seq, lane, attempts, nextAt: now + wait, ...known });
    }
    for (const { class: class_, subscriber, seq, attempts, wait } of holds) {
      const hold = new Hold(lane.cursors[class_] ?? lane.cursors[0]!, subscriber, seq);
      hold.attempts = attempts;
      hold.nextAt = now + wait;
      lane.holds.set(hold.key, hold);
    }
  }
}
