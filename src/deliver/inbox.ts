// An inbox as its readers see it, in the process that fills it and in any other: parts in the order of their rows, of
// which the oldest may be dropped and a new one may come at any time. Rows are numbered without gaps and become visible in
// that order, so who has read up to a number never finds a lower one later.
import pg from 'pg';
import type { Pool } from '../postgres/pool.ts';

export interface InboxEvent {
  readonly seq: bigint;
  /** Null for a record that became no event. */
  readonly subscriber: string | null;
  readonly eventId: string;
  readonly type: string | null;
  readonly priority: number;
  readonly topic: string;
  /** Of the record, ms since the epoch. */
  readonly time: number;
  /** ms since the epoch. */
  readonly expires: number | null;
  readonly data: string;
}

export interface InboxPart {
  readonly id: number;
  readonly firstSeq: bigint;
}

export interface InboxRow {
  readonly id: number;
  readonly name: string;
  readonly acknowledge: 'written' | 'client';
}

/** Events after a number, and which number the inbox began with when they were read. */
export interface InboxRead {
  readonly events: readonly InboxEvent[];
  readonly firstSeq: bigint;
}

interface EventRow {
  seq: bigint;
  subscriber: string | null;
  event_id: string;
  event_type: string | null;
  priority: number;
  topic: string | null;
  record_time: bigint;
  expires: bigint | null;
  data: string | null;
}

const columns = `e.seq, e.subscriber, e.event_id, e.event_type, e.priority, t.name AS topic, e.record_time,
  (extract(epoch FROM e.expires_at) * 1000)::bigint AS expires, e.data`;
const maxLooks = 5;
const undefinedTable = '42P01';

export class Inbox {
  readonly id: number;
  readonly name: string;
  readonly acknowledge: 'written' | 'client';
  readonly pool: Pool;
  #parts: readonly InboxPart[] = [];
  #stale = true;
  /** How often they were called stale. */
  #expected = 0;
  #loading: Promise<void> | undefined;

  constructor(pool: Pool, row: InboxRow) {
    this.pool = pool;
    this.id = row.id;
    this.name = row.name;
    this.acknowledge = row.acknowledge;
  }

  /** A part is there that was not when they were read last, or may be. */
  expectPart(id?: number): void {
    if (id !== undefined && this.#parts.some(part => part.id === id)) return;
    this.#stale = true;
    this.#expected++;
  }

  /** The last number given; one before the first where there is none. */
  async end(): Promise<bigint> {
    return this.read(async parts => {
      const newest = parts.at(-1);
      if (newest === undefined) return 0n;
      const { rows } = await this.pool.query<{ end: bigint | null }>(
        `SELECT max(seq) AS end FROM kafka.inbox_part_${newest.id}`,
      );
      return rows[0]!.end ?? newest.firstSeq - 1n;
    });
  }

  /** Rows of all subscribers after `seq`, in order, dead ones too. */
  after(seq: bigint, limit: number): Promise<InboxRead> {
    return this.#events(seq, limit, 'e.seq > $1', []);
  }

  /** A subscriber's events after `seq`, in order, but for those that have expired. */
  of(subscriber: string, seq: bigint, limit: number): Promise<InboxRead> {
    return this.#events(
      seq,
      limit,
      `e.seq > $1 AND e.subscriber = $3 AND (e.expires_at > now() OR e.expires_at IS NULL)`,
      [subscriber],
    );
  }

  /** A subscriber's newest events before `seq`, newest first, expired ones too. */
  async history(subscriber: string, seq: bigint, limit: number): Promise<InboxEvent[]> {
    return this.read(async parts => {
      const events: InboxEvent[] = [];
      for (const { id, firstSeq } of parts.toReversed()) {
        if (firstSeq >= seq) continue;
        const { rows } = await this.pool.query<EventRow>(
          `SELECT ${columns} FROM kafka.inbox_part_${id} e LEFT JOIN kafka.topic_names t USING (topic_id)
           WHERE e.seq < $1 AND e.subscriber = $3 ORDER BY e.seq DESC LIMIT $2`,
          [seq, limit - events.length, subscriber],
        );
        for (const row of rows) events.push(eventOf(row));
        if (events.length >= limit) break;
      }
      return events;
    });
  }

  /** The number before the subscriber's first event that arrived at `time` or later, or before all that are to come. */
  async before(subscriber: string, time: Date): Promise<bigint> {
    const end = await this.end();
    return this.read(async parts => {
      for (const { id } of parts) {
        const { rows } = await this.pool.query<{ seq: bigint | null }>(
          `SELECT min(seq) AS seq FROM kafka.inbox_part_${id} WHERE subscriber = $1 AND appended_at >= $2`,
          [subscriber, time],
        );
        if (rows[0]!.seq !== null) return rows[0]!.seq - 1n;
      }
      return end;
    });
  }

  /**
   * Runs `work` on the parts as they are, and again on what they have become when one was dropped under it. Of those
   * before the oldest part nothing is known any more.
   */
  async read<T>(work: (parts: readonly InboxPart[]) => Promise<T>): Promise<T> {
    for (let looks = 1; ; looks++) {
      while (this.#stale) await this.#load();
      try {
        return await work(this.#parts);
      } catch (error) {
        if (!(error instanceof pg.DatabaseError) || error.code !== undefinedTable || looks === maxLooks) throw error;
        this.expectPart();
      }
    }
  }

  /** The parts that have rows after `seq`. */
  static beyond(parts: readonly InboxPart[], seq: bigint): readonly InboxPart[] {
    return parts.filter((_part, i) => parts[i + 1] === undefined || parts[i + 1]!.firstSeq - 1n > seq);
  }

  async #events(seq: bigint, limit: number, condition: string, values: readonly unknown[]): Promise<InboxRead> {
    return this.read(async parts => {
      const events: InboxEvent[] = [];
      for (const { id } of Inbox.beyond(parts, seq)) {
        const { rows } = await this.pool.query<EventRow>(
          `SELECT ${columns} FROM kafka.inbox_part_${id} e LEFT JOIN kafka.topic_names t USING (topic_id)
           WHERE ${condition} ORDER BY e.seq LIMIT $2`,
          [seq, limit - events.length, ...values],
        );
        for (const row of rows) events.push(eventOf(row));
        if (events.length >= limit) break;
      }
      return { events, firstSeq: parts[0]?.firstSeq ?? 1n };
    });
  }

  /** Whoever comes while the parts are read waits for them too, and reads again what became stale meanwhile. */
  #load(): Promise<void> {
    this.#loading ??= this.#readParts().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #readParts(): Promise<void> {
    const expected = this.#expected;
    const { rows } = await this.pool.query<InboxPart>(
      `SELECT part_id AS id, first_seq AS "firstSeq" FROM kafka.inbox_parts WHERE inbox_id = $1 ORDER BY first_seq`,
      [this.id],
    );
    this.#parts = rows;
    if (this.#expected === expected) this.#stale = false;
  }
}

function eventOf(row: EventRow): InboxEvent {
  return {
    seq: row.seq,
    subscriber: row.subscriber,
    eventId: row.event_id,
    type: row.event_type,
    priority: row.priority,
    topic: row.topic ?? '',
    time: Number(row.record_time),
    expires: row.expires === null ? null : Number(row.expires),
    data: row.data ?? '',
  };
}
