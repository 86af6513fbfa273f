// What webhooks read and write in the database: lanes and their leases, events by lane, and what has become of them.
import type { Pool } from '../../postgres/pool.ts';
import { WriteLane } from '../../storage/write-lane.ts';
import type { Inbox } from '../inbox.ts';
import type { Cursor, Hold, Lane } from './cursor.ts';
import type { EndpointRow } from './endpoint.ts';

export interface StoredEvent {
  readonly seq: bigint;
  readonly lane: number;
  /** Of its priority: 0 LOW, 1 MEDIUM, 2 HIGH. */
  readonly class: number;
  readonly subscriber: string;
  readonly eventId: string;
  readonly type: string | null;
  readonly topic: string;
  readonly data: string;
  readonly expired: boolean;
  /** Undefined where there is none for the subscriber. */
  readonly endpoint: EndpointRow | undefined;
}

export interface Page {
  readonly events: readonly StoredEvent[];
  /** There may be more behind the last. */
  readonly full: boolean;
}

/** What a flush tells. Waits in ms from now; int64 as text, since it goes as JSON. */
export interface Changes {
  positions?: { lane: number; class: number; seq: string }[];
  retried?: { lane: number; seq: string }[];
  retries?: { lane: number; seq: string; attempts: number; wait: number; reason: string }[];
  released?: { lane: number; class: number; subscriber: string }[];
  holds?: { lane: number; class: number; subscriber: string; seq: string; attempts: number; wait: number }[];
  dead?: { lane: number; seq: string; attempts: number; code: string; reason: string; endpoint: string }[];
}

export interface LeasedLane {
  readonly lane: number;
  readonly epoch: bigint;
  readonly fresh: boolean;
  readonly share: number;
}

export interface StoredLane {
  /** By class. */
  readonly positions: readonly bigint[];
  readonly retries: readonly RetryRow[];
  readonly holds: readonly HoldRow[];
}

export interface RetryRow {
  readonly lane: number;
  readonly seq: bigint;
  readonly attempts: number;
  readonly wait: number;
}

interface HoldRow {
  readonly lane: number;
  readonly class: number;
  readonly subscriber: string;
  readonly seq: bigint;
  readonly attempts: number;
  readonly wait: number;
}

interface EventRow extends Omit<StoredEvent, 'endpoint' | 'eventId' | 'topic'> {
  readonly place: number;
  readonly event_id: string;
  readonly topic: string | null;
  readonly endpoint_id: bigint | null;
  readonly url: string;
  readonly secrets: readonly string[];
  readonly enabled: boolean;
  readonly own: boolean;
}

const columns = `e.seq, kafka.webhook_lane(e.subscriber) AS lane, kafka.webhook_class(e.priority) AS class, e.subscriber,
  e.event_id, e.event_type AS type, t.name AS topic, coalesce(e.data, '') AS data,
  coalesce(e.expires_at <= now(), false) AS expired,
  n.endpoint_id, n.url, n.secrets, n.enabled, n.subscriber IS NOT NULL AS own`;
const endpoints = (inbox: string) => `LEFT JOIN kafka.topic_names t USING (topic_id)
  LEFT JOIN LATERAL (SELECT o.endpoint_id FROM kafka.webhook_endpoints o
    WHERE o.inbox_id = ${inbox} AND o.subscriber = e.subscriber LIMIT 1) own ON true
  LEFT JOIN kafka.webhook_endpoints common ON common.inbox_id = ${inbox} AND common.subscriber IS NULL
  LEFT JOIN kafka.webhook_endpoints n ON n.endpoint_id = coalesce(own.endpoint_id, common.endpoint_id)`;
const waitMs = `greatest(extract(epoch FROM next_at - clock_timestamp()) * 1000, 0)::float8 AS wait`;

export class Store {
  readonly inbox: Inbox;
  readonly #pool: Pool;
  readonly #lane: WriteLane;
  readonly #worker: string;

  constructor(inbox: Inbox, pool: Pool, worker: string) {
    this.inbox = inbox;
    this.#pool = pool;
    this.#lane = new WriteLane(pool);
    this.#worker = worker;
  }

  async lease(leaseMs: number, lanes: readonly Lane[], drained: readonly number[]): Promise<LeasedLane[]> {
    const { rows } = await this.#lane.run(client =>
      client.query<LeasedLane>('SELECT * FROM kafka.webhook_lease($1, $2, $3, $4, $5, $6)', [
        ...[this.inbox.id, this.#worker, leaseMs, lanes.map(({ id }) => id), lanes.map(({ epoch }) => epoch), drained],
      ]),
    );
    return rows;
  }

  async release(): Promise<void> {
    await this.#lane.run(client => client.query('SELECT kafka.webhook_release($1, $2)', [this.inbox.id, this.#worker]));
  }

  /** Where lanes stand; read after their leases were taken, so nothing of their last owners comes later. */
  async load(lanes: readonly number[]): Promise<Map<number, StoredLane>> {
    const { id } = this.inbox;
    const { rows: from } = await this.#pool.query<{ from: bigint }>(
      'SELECT webhook_from AS from FROM kafka.inboxes WHERE inbox_id = $1',
      [id],
    );
    const positions = await this.#positions(lanes, from[0]?.from ?? 0n);
    const { rows: retries } = await this.#pool.query<RetryRow>(
      `SELECT lane, seq, attempts, ${waitMs} FROM kafka.webhook_retries WHERE inbox_id = $1 AND lane = ANY ($2)`,
      [id, lanes],
    );
    const { rows: holds } = await this.#pool.query<HoldRow>(
      `SELECT lane, class, subscriber, seq, attempts, ${waitMs} FROM kafka.webhook_holds
       WHERE inbox_id = $1 AND lane = ANY ($2)`,
      [id, lanes],
    );
    return new Map(
      lanes.map(lane => [
        lane,
        {
          positions: [0, 1, 2].map(class_ => positions.get(`${lane}/${class_}`)!),
          retries: retries.filter(row => row.lane === lane),
          holds: holds.filter(row => row.lane === lane),
        },
      ]),
    );
  }

  /** By lane and class. The newest part that tells of one tells the last. */
  async #positions(lanes: readonly number[], least: bigint): Promise<Map<string, bigint>> {
    const wanted = lanes.flatMap(lane => [0, 1, 2].map(class_ => `${lane}/${class_}`));
    return this.inbox.read(async parts => {
      const found = new Map<string, bigint>();
      for (const part of parts.toReversed()) {
        const left = wanted.filter(cursor => !found.has(cursor));
        if (left.length === 0) break;
        const { rows } = await this.#pool.query<{ cursor: string; seq: bigint }>(
          `SELECT subscriber AS cursor, max(seq) AS seq FROM kafka.inbox_part_${part.id}_receipts
           WHERE subscriber = ANY ($1) AND kind = 'webhook' GROUP BY subscriber`,
          [left],
        );
        for (const { cursor, seq } of rows) found.set(cursor, seq);
      }
      for (const cursor of wanted) if ((found.get(cursor) ?? -1n) < least) found.set(cursor, least);
      return found;
    });
  }

  /** What others have put there: redriven events. */
  async retries(lanes: readonly number[]): Promise<RetryRow[]> {
    const { rows } = await this.#pool.query<RetryRow>(
      `SELECT lane, seq, attempts, ${waitMs} FROM kafka.webhook_retries WHERE inbox_id = $1 AND lane = ANY ($2)`,
      [this.inbox.id, lanes],
    );
    return rows;
  }

  /** The next events of each lane's class, or of all its classes in one order. */
  ofLanes(cursors: readonly Cursor[], room: number, ordered: boolean): Promise<Page[]> {
    return this.#pages(
      cursors,
      room,
      `SELECT x.* FROM generate_series(w.class::int, w.last::int) AS c (class) CROSS JOIN LATERAL (
         SELECT * FROM PART e WHERE kafka.webhook_lane(e.subscriber) = w.lane
           AND kafka.webhook_class(e.priority) = c.class AND e.seq > w.after ORDER BY e.seq LIMIT w.room) x
       ORDER BY x.seq LIMIT w.room`,
      ordered,
    );
  }

  ofHolds(holds: readonly Hold[], room: number, ordered: boolean): Promise<Page[]> {
    return this.#pages(
      holds,
      room,
      `SELECT * FROM PART e WHERE e.subscriber = w.subscriber
         AND kafka.webhook_class(e.priority) BETWEEN w.class AND w.last AND e.seq > w.after
       ORDER BY e.seq LIMIT w.room`,
      ordered,
    );
  }

  async #pages(cursors: readonly Cursor[], room: number, events: string, ordered: boolean): Promise<Page[]> {
    const pages = await this.inbox.read(async parts => {
      const found = cursors.map(cursor => ({ cursor, after: cursor.scanned, events: [] as StoredEvent[] }));
      for (const [i, { id }] of parts.entries()) {
        const next = parts[i + 1];
        const open = found.filter(
          ({ events, after }) => events.length < room && (next === undefined || next.firstSeq - 1n > after),
        );
        if (open.length === 0) continue;
        const { rows } = await this.#pool.query<EventRow>(
          `SELECT w.place, ${columns}
           FROM unnest($2::smallint[], $3::smallint[], $4::smallint[], $5::text[], $6::bigint[], $7::int[]) WITH ORDINALITY
             AS w (lane, class, last, subscriber, after, room, place)
           CROSS JOIN LATERAL (${events.replace('PART', `kafka.inbox_part_${id}`)}) e
           ${endpoints('$1')} ORDER BY w.place, e.seq`,
          [
            this.inbox.id,
            ...[open.map(o => o.cursor.lane.id), open.map(o => o.cursor.class)],
            open.map(o => (ordered ? 2 : o.cursor.class)),
            open.map(o => ('subscriber' in o.cursor ? o.cursor.subscriber : null)),
            ...[open.map(o => o.after), open.map(o => room - o.events.length)],
          ],
        );
        for (const row of rows) open[Number(row.place) - 1]!.events.push(eventOf(row));
      }
      return found;
    });
    return pages.map(({ events }) => ({ events, full: events.length >= room }));
  }

  /** Those that are still there. */
  async bySeq(seqs: readonly bigint[]): Promise<Map<bigint, StoredEvent>> {
    return this.inbox.read(async parts => {
      const found = new Map<bigint, StoredEvent>();
      for (const { id } of parts) {
        if (found.size === seqs.length) break;
        const { rows } = await this.#pool.query<EventRow>(
          `SELECT ${columns} FROM kafka.inbox_part_${id} e ${endpoints('$1')}
           WHERE e.seq = ANY ($2::bigint[]) AND e.subscriber IS NOT NULL`,
          [this.inbox.id, seqs],
        );
        for (const row of rows) found.set(row.seq, eventOf(row));
      }
      return found;
    });
  }

  /** Returns which of the lanes were still held; of the others nothing was written. */
  async settle(lanes: readonly Lane[], changes: Changes): Promise<number[]> {
    return this.inbox.read(async parts => {
      const { rows } = await this.#lane.run(client =>
        client.query<{ held: number[] }>({
          name: 'webhook-settle',
          text: 'SELECT kafka.webhook_settle($1, $2, $3, $4, $5) AS held',
          values: [
            ...[this.inbox.id, parts.at(-1)?.id ?? 0, lanes.map(({ id }) => id), lanes.map(({ epoch }) => epoch)],
            JSON.stringify(changes),
          ],
        }),
      );
      return rows[0]!.held;
    });
  }

  /** Its receiver wants nothing more there; another URL that it has been given meanwhile stays. */
  async disable(endpoint: bigint, url: string, reason: string): Promise<void> {
    await this.#pool.query(
      `UPDATE kafka.webhook_endpoints SET enabled = false, reason = $3, changed_at = now()
       WHERE endpoint_id = $1 AND url = $2`,
      [endpoint, url, reason],
    );
  }

  async endpoints(ids: readonly bigint[]): Promise<EndpointRow[]> {
    const { rows } = await this.#pool.query<EndpointRow>(
      `SELECT endpoint_id AS id, url, secrets, enabled, subscriber IS NOT NULL AS own
       FROM kafka.webhook_endpoints WHERE endpoint_id = ANY ($1)`,
      [ids],
    );
    return rows;
  }
}

function eventOf(row: EventRow): StoredEvent {
  const { seq, lane, subscriber, type, data, expired, endpoint_id: id, url, secrets, enabled, own } = row;
  return {
    ...{ seq, lane, class: row.class, subscriber, type, data, expired },
    eventId: row.event_id,
    topic: row.topic ?? '',
    endpoint: id === null ? undefined : { id, url, secrets, enabled, own },
  };
}
