// What has become of events, collected and written a few times a second: positions, what is to be tried again, what is
// passed over, what is dead. A lane's all commit together or, where its lease is another's by now, none of it does.
import type { Logger } from 'pino';
import { messageOf } from '../../runtime/errors.ts';
import { type Cursor, Hold, holdKey, type Lane, type Retry } from './cursor.ts';
import type { Changes, Store } from './store.ts';

export interface Death {
  readonly seq: bigint;
  readonly attempts: number;
  readonly code: string;
  readonly reason: string;
  readonly endpoint: bigint;
}

interface LaneChanges {
  readonly moved: Set<Cursor>;
  /** Undefined: it is gone. */
  readonly holds: Map<string, Hold | undefined>;
  readonly retries: Map<bigint, Retry | undefined>;
  readonly dead: Death[];
  delivered: number;
}

export interface SettlementsOptions {
  readonly store: Pick<Store, 'settle'>;
  readonly logger: Logger;
  readonly onStored: (delivered: number, dead: number) => void;
  /** What had been done with the lane's lease of before was refused. */
  readonly onRefused: (lane: Lane, completions: number) => void;
}

const flushMs = 20;
const retryMs = 500;

export class Settlements {
  readonly #options: SettlementsOptions;
  #changes = new Map<Lane, LaneChanges>();
  /** Taken out of `#changes`, and perhaps not committed yet. */
  #storing: ReadonlyMap<Lane, LaneChanges> = new Map();
  #timer: NodeJS.Timeout | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: SettlementsOptions) {
    this.#options = options;
  }

  moved(cursor: Cursor): void {
    const changes = this.#of(cursor.lane);
    if (cursor instanceof Hold) changes.holds.set(cursor.key, cursor);
    else changes.moved.add(cursor);
  }

  delivered(lane: Lane): void {
    this.#of(lane).delivered++;
  }

  holdGone(hold: Hold): void {
    this.#of(hold.lane).holds.set(hold.key, undefined);
  }

  retry(retry: Retry): void {
    this.#of(retry.lane).retries.set(retry.seq, retry);
  }

  retryDone(retry: Retry): void {
    this.#of(retry.lane).retries.set(retry.seq, undefined);
  }

  dead(lane: Lane, death: Death): void {
    this.#of(lane).dead.push(death);
  }

  /** Whether something of the lane is not stored yet. */
  has(lane: Lane): boolean {
    return this.#changes.has(lane) || this.#storing.has(lane);
  }

  /** Whether what is stored about the event is not what is known here. */
  knows(lane: Lane, seq: bigint): boolean {
    return this.#changes.get(lane)?.retries.has(seq) ?? false;
  }

  /** Stores everything there is. Returns whether it did. */
  flush(): Promise<boolean> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    return this.exclusively(() => this.#flush());
  }

  /** Runs `work` while nothing is being stored. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }

  #of(lane: Lane): LaneChanges {
    let changes = this.#changes.get(lane);
    if (changes === undefined) {
      changes = { moved: new Set(), holds: new Map(), retries: new Map(), dead: [], delivered: 0 };
      this.#changes.set(lane, changes);
      this.#timer ??= setTimeout(() => void this.flush(), flushMs);
    }
    return changes;
  }

  async #flush(): Promise<boolean> {
    const taken = this.#changes;
    if (taken.size === 0) return true;
    this.#changes = new Map();
    this.#storing = taken;
    const lanes = [...taken.keys()];
    const { changes, positions } = written(taken);
    const { store, logger, onStored, onRefused } = this.#options;
    try {
      const held = new Set(await store.settle(lanes, changes));
      for (const [cursor, position] of positions) if (held.has(cursor.lane.id)) cursor.stored = position;
      for (const [lane, { delivered, dead }] of taken) {
        if (held.has(lane.id)) onStored(delivered, dead.length);
        else onRefused(lane, delivered + dead.length);
      }
      return true;
    } catch (error) {
      logger.warn({ error: messageOf(error) }, 'what became of webhooks could not be stored; trying again');
      for (const [lane, before] of taken) this.#putBack(lane, before);
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.flush(), retryMs);
      return false;
    } finally {
      this.#storing = new Map();
    }
  }

  /** What is newer stays. */
  #putBack(lane: Lane, before: LaneChanges): void {
    const now = this.#of(lane);
    for (const cursor of before.moved) now.moved.add(cursor);
    for (const [key, hold] of before.holds) if (!now.holds.has(key)) now.holds.set(key, hold);
    for (const [seq, retry] of before.retries) if (!now.retries.has(seq)) now.retries.set(seq, retry);
    now.dead.unshift(...before.dead);
    now.delivered += before.delivered;
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/** As they are at this moment, so that a position never passes what is not noted beside it. */
function written(taken: ReadonlyMap<Lane, LaneChanges>): { changes: Changes; positions: Map<Cursor, bigint> } {
  const now = performance.now();
  const positions = new Map<Cursor, bigint>();
  const lists = {
    positions: [] as NonNullable<Changes['positions']>,
    retried: [] as NonNullable<Changes['retried']>,
    retries: [] as NonNullable<Changes['retries']>,
    released: [] as NonNullable<Changes['released']>,
    holds: [] as NonNullable<Changes['holds']>,
    dead: [] as NonNullable<Changes['dead']>,
  };
  for (const [lane, { moved, holds, retries, dead }] of taken) {
    const at = { lane: lane.id };
    for (const cursor of moved) {
      const { position } = cursor;
      if (position <= cursor.stored) continue;
      positions.set(cursor, position);
      lists.positions.push({ ...at, class: cursor.class, seq: String(position) });
    }
    for (const [key, hold] of holds) {
      if (hold === undefined) {
        const slash = key.indexOf('/');
        lists.released.push({ ...at, class: Number(key.slice(0, slash)), subscriber: key.slice(slash + 1) });
      } else if (lane.holds.get(holdKey(hold.class, hold.subscriber)) === hold) {
        const { subscriber, attempts, nextAt, position } = hold;
        const wait = Math.max(nextAt - now, 0);
        lists.holds.push({ ...at, class: hold.class, subscriber, seq: String(position), attempts, wait });
      }
    }
    for (const [seq, retry] of retries) {
      if (retry === undefined) lists.retried.push({ ...at, seq: String(seq) });
      else {
        const { attempts, reason, nextAt } = retry;
        lists.retries.push({ ...at, seq: String(seq), attempts, reason, wait: Math.max(nextAt - now, 0) });
      }
    }
    for (const { seq, attempts, code, reason, endpoint } of dead) {
      lists.dead.push({ ...at, seq: String(seq), attempts, code, reason, endpoint: String(endpoint) });
    }
  }
  const changes = Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0));
  return { changes, positions };
}
