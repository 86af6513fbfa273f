// How far subscribers have come: rows beside the part that holds the event they tell of, only ever inserted, and dropped
// with it. What has been written to a connection is noted here and stored once a second for all subscribers together; what
// a crash loses of that is delivered again under the same id.
import type { Logger } from 'pino';
import { Inbox } from './inbox.ts';

/**
 * delivered: written to a connection, up to here. acknowledged: by the client, up to here. seen: read by a person, up to
 * here. read: this one.
 */
export type ReceiptKind = 'delivered' | 'acknowledged' | 'seen' | 'read';

export interface Receipt {
  readonly kind: ReceiptKind;
  readonly subscriber: string;
  readonly seq: bigint;
}

const storeMs = 1000;

export class Receipts {
  readonly #inbox: Inbox;
  readonly #logger: Logger;
  #delivered = new Map<string, bigint>();
  /** Taken out of `#delivered`, and perhaps not committed yet. */
  #stored: ReadonlyMap<string, bigint> = new Map();
  #timer: NodeJS.Timeout | undefined;
  #storing: Promise<void> = Promise.resolve();

  constructor(inbox: Inbox, logger: Logger) {
    this.#inbox = inbox;
    this.#logger = logger;
  }

  /** Everything up to `seq` that is for the subscriber has been written to one connection. */
  delivered(subscriber: string, seq: bigint): void {
    const before = this.#delivered.get(subscriber);
    if (before === undefined || seq > before) this.#delivered.set(subscriber, seq);
    this.#timer ??= setTimeout(() => void this.flush(), storeMs);
  }

  /** Resolves when what has been noted is stored, or has failed and is kept for the next time. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#storing = this.#storing.then(() => this.#flush());
    return this.#storing;
  }

  async #flush(): Promise<void> {
    const taken = this.#delivered;
    if (taken.size === 0) return;
    this.#delivered = new Map();
    this.#stored = taken;
    try {
      await this.store(Array.from(taken, ([subscriber, seq]) => ({ kind: 'delivered', subscriber, seq })));
    } catch (error) {
      this.#logger.warn({ err: error, subscribers: taken.size }, 'what was delivered could not be stored yet');
      for (const [subscriber, seq] of taken) this.delivered(subscriber, seq);
    }
  }

  /** Those that tell of a dropped part are left out: nothing is before the parts that are left. */
  async store(receipts: readonly Receipt[]): Promise<void> {
    await this.#inbox.read(async parts => {
      let left = receipts;
      for (const { id, firstSeq } of parts.toReversed()) {
        const here = left.filter(({ seq }) => seq >= firstSeq);
        left = left.filter(({ seq }) => seq < firstSeq);
        if (here.length === 0) continue;
        await this.#inbox.pool.query(
          `INSERT INTO kafka.inbox_part_${id}_receipts (seq, kind, subscriber) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])`,
          [here.map(r => r.seq), here.map(r => r.kind), here.map(r => r.subscriber)],
        );
      }
    });
  }

  /** Up to where the subscriber has come, in this process's eyes too; the number before the oldest part where nothing tells. */
  async cursor(kind: Exclude<ReceiptKind, 'read'>, subscriber: string): Promise<bigint> {
    // Before the rows are read: what is neither noted nor being stored by then is committed, and found.
    const noted = kind === 'delivered' ? (this.#delivered.get(subscriber) ?? this.#stored.get(subscriber)) : undefined;
    const stored = await this.#inbox.read(async parts => {
      for (const { id } of parts.toReversed()) {
        const { rows } = await this.#inbox.pool.query<{ seq: bigint | null }>(
          `SELECT max(seq) AS seq FROM kafka.inbox_part_${id}_receipts WHERE subscriber = $1 AND kind = $2`,
          [subscriber, kind],
        );
        if (rows[0]!.seq !== null) return rows[0]!.seq;
      }
      return (parts[0]?.firstSeq ?? 1n) - 1n;
    });
    return noted !== undefined && noted > stored ? noted : stored;
  }

  /** Which of the subscriber's events from `first` to `last` have been read one by one. */
  async readBetween(subscriber: string, first: bigint, last: bigint): Promise<Set<bigint>> {
    return this.#inbox.read(async parts => {
      const found = new Set<bigint>();
      for (const { id } of Inbox.beyond(parts, first - 1n)) {
        const { rows } = await this.#inbox.pool.query<{ seq: bigint }>(
          `SELECT seq FROM kafka.inbox_part_${id}_receipts
           WHERE subscriber = $1 AND kind = 'read' AND seq BETWEEN $2 AND $3`,
          [subscriber, first, last],
        );
        for (const { seq } of rows) found.add(seq);
      }
      return found;
    });
  }
}
