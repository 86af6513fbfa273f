// What is written to an inbox, by the one process that leads the log: its parts and key tables in their turns, rows, and
// the consumer group's offsets with them. A writer whose term is over is refused by the fence.
//
// The rows tell themselves how far each partition has been read. The group's offsets are written in the transaction of
// rows too, but once a second at most, with the number of the row they tell of: a row that is updated by every transaction
// would leave a dead version each time, and become slow to find while an old snapshot holds them.
import type pg from 'pg';
import type { Pool } from '../postgres/pool.ts';
import type { Term } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';
import type { InboxDefinition } from './definition.ts';
import type { Entry } from './event.ts';
import { Inbox } from './inbox.ts';
import { describeWebhook } from './webhooks/description.ts';

/** A partition that the inbox reads. */
export interface Place {
  readonly topicId: number;
  readonly partition: number;
}

export interface Move extends Place {
  /** What the group's committed offset must be. */
  readonly expected: bigint;
  readonly next: bigint;
}

interface KeyTable {
  readonly id: number;
  readonly openedAt: Date;
}

interface OffsetRow {
  topic_id: number;
  partition_id: number;
  committed_offset: bigint;
  metadata: string;
}

/** An inbox has so many parts while it is filled all the time. */
const partsOfRetention = 24;
const minPartMs = 60_000;
const maxPartMs = 86_400_000;
const dropLockMs = 1000;

export class Appender {
  readonly inbox: Inbox;
  readonly #pool: Pool;
  readonly #definition: InboxDefinition;
  readonly #term: () => Term;
  readonly #lane: WriteLane;
  #part = { id: -1, firstSeq: 1n, openedAt: new Date(0) };
  #keys: readonly KeyTable[] = [];
  #next = 1n;
  /** ms since the epoch: nothing that waits is due before. */
  #nextDue = Number.POSITIVE_INFINITY;
  /** ms since the epoch: nothing waits that is due before. */
  #releasedTo = 0;

  private constructor(pool: Pool, definition: InboxDefinition, term: () => Term, lane: WriteLane, inbox: Inbox) {
    this.#pool = pool;
    this.#definition = definition;
    this.#term = term;
    this.#lane = lane;
    this.inbox = inbox;
  }

  /** Makes the inbox where there is none of the name. */
  static async open(
    pool: Pool,
    definition: InboxDefinition,
    term: () => Term,
  ): Promise<{ appender: Appender; paused: boolean }> {
    const lane = new WriteLane(pool, term);
    const { name, acknowledge, channel, webhook } = definition;
    const { id, paused } = await lane.transaction(async client => {
      const { rows } = await client.query<{ id: number; paused: boolean }>(
        `INSERT INTO kafka.inboxes AS i (name, acknowledge, channel) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET acknowledge = excluded.acknowledge, channel = excluded.channel
         RETURNING inbox_id AS id, paused`,
        [name, acknowledge, channel],
      );
      await describeWebhook(client, rows[0]!.id, webhook);
      return rows[0]!;
    });
    return { appender: new Appender(pool, definition, term, lane, new Inbox(pool, { id, name, acknowledge })), paused };
  }

  /** The number that the next row gets. */
  get next(): bigint {
    return this.#next;
  }

  /** Reads back where the inbox stands. What was being written when an answer was lost has happened, or never will. */
  async load(): Promise<void> {
    const { id } = this.inbox;
    await this.#lane.transaction(async client => {
      const { rows: parts } = await client.query<{ id: number; firstSeq: bigint; openedAt: Date }>(
        `SELECT part_id AS id, first_seq AS "firstSeq", opened_at AS "openedAt" FROM kafka.inbox_parts
         WHERE inbox_id = $1 ORDER BY first_seq DESC LIMIT 1`,
        [id],
      );
      if (parts[0] === undefined) await this.#openPart(client, 1n);
      const { rows: keys } = await client.query<KeyTable>(
        `SELECT keys_id AS id, opened_at AS "openedAt" FROM kafka.inbox_key_tables WHERE inbox_id = $1 ORDER BY keys_id DESC`,
        [id],
      );
      if (keys[0] === undefined) await client.query('SELECT kafka.inbox_open_keys($1)', [id]);
    });
    await this.#readTables();
    this.#next = (await this.inbox.end()) + 1n;
    this.#releasedTo = 0;
    this.#nextDue = await this.#readNextDue();
  }

  /** How far each partition has been read; of those that are new to the group, `begin` tells. */
  async positions(begin: readonly (Place & { readonly offset: bigint })[]): Promise<Map<string, Move>> {
    const { group } = this.#definition;
    const stored = `SELECT topic_id, partition_id, committed_offset, convert_from(metadata, 'UTF8') AS metadata
      FROM kafka.consumer_offsets WHERE group_id = $1`;
    let since = 0n;
    const rows = await this.#lane.transaction(async client => {
      const known = await client.query<OffsetRow>(stored, [group]);
      // The newest is true of all: those that had not moved were not written.
      const told = known.rows.flatMap(row => toldOf(row) ?? []);
      if (told.length === 0) since = this.#next - 1n;
      for (const seq of told) if (seq > since) since = seq;
      // Topics first, as everything that writes offsets locks them (src/storage/offsets.ts).
      await client.query(
        `WITH live AS MATERIALIZED (
           SELECT topic_id FROM kafka.topics WHERE topic_id = ANY ($2::int[]) ORDER BY topic_id FOR KEY SHARE)
         INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset, metadata)
         SELECT $1, topic_id, partition_id, next, convert_to('seq ' || $5::bigint, 'UTF8')
         FROM unnest($2::int[], $3::int[], $4::bigint[]) AS given (topic_id, partition_id, next) JOIN live USING (topic_id)
         ORDER BY topic_id, partition_id
         ON CONFLICT DO NOTHING`,
        [group, begin.map(p => p.topicId), begin.map(p => p.partition), begin.map(p => p.offset), since],
      );
      return (await client.query<OffsetRow>(stored, [group])).rows;
    });
    const read = await this.#readSince(since);
    return new Map(
      rows.map(row => {
        const place = { topicId: row.topic_id, partition: row.partition_id };
        const expected = row.committed_offset;
        // Somebody else who moves the group's offsets leaves no number: then it goes on where they say.
        const told = toldOf(row) === undefined ? undefined : read.get(placeKey(place));
        return [placeKey(place), { ...place, expected, next: told !== undefined && told > expected ? told : expected }];
      }),
    );
  }

  async #readSince(seq: bigint): Promise<Map<string, bigint>> {
    return this.inbox.read(async parts => {
      const read = new Map<string, bigint>();
      for (const { id } of Inbox.beyond(parts, seq)) {
        const { rows } = await this.#pool.query<{ topic_id: number; partition_id: number; next: bigint }>(
          `SELECT topic_id, partition_id, max(record_offset) + 1 AS next FROM kafka.inbox_part_${id}
           WHERE seq > $1 GROUP BY topic_id, partition_id`,
          [seq],
        );
        for (const row of rows) read.set(placeKey({ topicId: row.topic_id, partition: row.partition_id }), row.next);
      }
      return read;
    });
  }

  /**
   * In one transaction: what is due becomes rows, the rest waits. Returns which of those that are due are new, each with its
   * number, and how many wait. Throws with KF002 (see the migration).
   */
  async append(
    entries: readonly Entry[],
    moves: readonly Move[],
  ): Promise<{ fresh: { entry: Entry; seq: bigint }[]; waiting: number }> {
    // What has been released up to a time is not looked at again, though the clock is set back.
    const now = Math.max(Date.now(), this.#releasedTo);
    const waiting = entries.filter(({ due }) => due !== null && due > now);
    const due = waiting.length === 0 ? entries : entries.filter(entry => !waiting.includes(entry));
    const first = this.#next;
    const places =
      waiting.length === 0
        ? await this.#lane.run(client => this.#append(client, due, moves))
        : await this.#lane.transaction(async client => {
            await this.#wait(client, waiting);
            return this.#append(client, due, moves);
          });
    this.#next = first + BigInt(places.length);
    for (const entry of waiting) this.#nextDue = Math.min(this.#nextDue, entry.due!);
    const fresh = places.map((place, i) => ({ entry: due[place - 1]!, seq: first + BigInt(i) }));
    return { fresh, waiting: waiting.length };
  }

  async #append(client: pg.PoolClient, entries: readonly Entry[], moves: readonly Move[]): Promise<number[]> {
    const column = columnsOf(entries);
    const { rows } = await client.query<{ fresh: number[] }>({
      name: 'inbox-append',
      text: `SELECT kafka.inbox_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
        $19, $20, $21, $22, $23, $24) AS fresh`,
      values: [
        ...this.#place(),
        ...[column('key'), column('topicId'), column('partition'), column('offset'), column('time')],
        ...[column('expires'), column('priority'), column('subscriber'), column('eventId'), column('type')],
        ...[column('data'), column('dead'), this.#definition.group],
        ...[moves.map(m => m.topicId), moves.map(m => m.partition), moves.map(m => m.expected)],
        moves.map(m => m.next),
      ],
    });
    return rows[0]!.fresh;
  }

  async #wait(client: pg.PoolClient, entries: readonly Entry[]): Promise<void> {
    const column = columnsOf(entries);
    await client.query(
      `INSERT INTO kafka.inbox_waiting (inbox_id, due_at, key, topic_id, partition_id, record_offset, record_time, expires_ms,
         priority, subscriber, event_id, event_type, data)
       SELECT $1, to_timestamp(due / 1000.0), key, topic, partition, record_offset, record_time, expires, priority, subscriber,
         event_id, event_type, data
       FROM unnest($2::bigint[], $3::uuid[], $4::int[], $5::int[], $6::bigint[], $7::bigint[], $8::bigint[], $9::smallint[],
         $10::text[], $11::text[], $12::text[], $13::text[]) AS given (due, key, topic, partition, record_offset,
         record_time, expires, priority, subscriber, event_id, event_type, data)`,
      [
        ...[this.inbox.id, column('due'), column('key'), column('topicId'), column('partition'), column('offset')],
        ...[column('time'), column('expires'), column('priority'), column('subscriber'), column('eventId')],
        ...[column('type'), column('data')],
      ],
    );
  }

  /** ms until something is due; 0 where it is. */
  untilDue(now = Date.now()): number {
    return Math.max(0, this.#nextDue - now);
  }

  /** Takes what is due into the inbox, at most so many: how many it were, and how many of them are new there. */
  async release(atMost: number, now = Date.now()): Promise<{ taken: number; fresh: number }> {
    const { rows } = await this.#lane.run(client =>
      client.query<{ taken: number; fresh: number }>(
        `SELECT taken, fresh FROM kafka.inbox_release($1, $2, $3, $4, $5, $6, $7, to_timestamp($8 / 1000.0),
           to_timestamp($9 / 1000.0), $10)`,
        [...this.#place(), this.#releasedTo, now, atMost],
      ),
    );
    const { taken, fresh } = rows[0]!;
    this.#next += BigInt(fresh);
    if (taken < atMost) this.#releasedTo = now;
    this.#nextDue = taken < atMost ? await this.#readNextDue() : now;
    return { taken, fresh };
  }

  async #readNextDue(): Promise<number> {
    const { rows } = await this.#pool.query<{ due: number | null }>(
      `SELECT (extract(epoch FROM min(due_at)) * 1000)::float8 AS due FROM kafka.inbox_waiting
       WHERE inbox_id = $1 AND due_at >= to_timestamp($2 / 1000.0)`,
      [this.inbox.id, this.#releasedTo],
    );
    return rows[0]!.due ?? Number.POSITIVE_INFINITY;
  }

  /** Where rows go, and whose they are: the first parameters of what writes them. */
  #place(): unknown[] {
    const { brokerId, epoch } = this.#term();
    const [newest, ...older] = this.#keys.map(({ id }) => id);
    return [brokerId, epoch, this.inbox.id, this.#part.id, newest, older, this.#next];
  }

  /** Opens what is due, drops what is past. To be called between appends. */
  async turn(now = new Date()): Promise<void> {
    const { retention, window } = this.#definition;
    const partMs = Math.min(Math.max(retention / partsOfRetention, minPartMs), maxPartMs);
    const age = (since: Date): number => now.getTime() - since.getTime();
    const partIsDue = age(this.#part.openedAt) >= partMs && this.#next > this.#part.firstSeq;
    const keysAreDue = age(this.#keys[0]!.openedAt) >= window;
    if (!partIsDue && !keysAreDue) return;
    await this.#lane.transaction(async client => {
      if (partIsDue) await this.#openPart(client, this.#next);
      if (keysAreDue) await client.query('SELECT kafka.inbox_open_keys($1)', [this.inbox.id]);
    });
    await this.#readTables();
  }

  async #openPart(client: pg.PoolClient, first: bigint): Promise<void> {
    const opened = 'kafka.inbox_open_part($1, $2)';
    const text = this.#definition.webhook === undefined ? opened : `kafka.webhook_index(${opened})`;
    await client.query(`SELECT ${text}`, [this.inbox.id, first]);
  }

  /** What is in a table is as old as the next one at least. Each goes by itself, so that a reader of one delays no other. */
  async dropPast(now = new Date()): Promise<number> {
    const { retention, window } = this.#definition;
    const before = (ms: number): Date => new Date(now.getTime() - ms);
    const past = await this.#pool.query<{ id: number; tables: string; list: string; column: string }>(
      `SELECT part_id AS id, format('kafka.inbox_part_%s, kafka.inbox_part_%s_receipts', part_id, part_id) AS tables,
              'inbox_parts' AS list, 'part_id' AS column
       FROM (SELECT part_id, lead(opened_at) OVER (ORDER BY first_seq) AS ended FROM kafka.inbox_parts WHERE inbox_id = $1) p
       WHERE ended < $2
       UNION ALL
       SELECT keys_id, format('kafka.inbox_keys_%s', keys_id), 'inbox_key_tables', 'keys_id'
       FROM (SELECT keys_id, lead(opened_at) OVER (ORDER BY keys_id) AS ended FROM kafka.inbox_key_tables WHERE inbox_id = $1) k
       WHERE ended < $3`,
      [this.inbox.id, before(retention), before(window)],
    );
    for (const { id, tables, list, column } of past.rows) {
      await this.#lane.transaction(async client => {
        await client.query(`SET LOCAL lock_timeout = ${dropLockMs}`);
        await client.query(`DROP TABLE IF EXISTS ${tables}`);
        await client.query(`DELETE FROM kafka.${list} WHERE ${column} = $1`, [id]);
      });
    }
    if (past.rows.length > 0) await this.#readTables();
    return past.rows.length;
  }

  /** Committed offsets of groups without members expire; an inbox that is idle keeps its own. */
  async keepOffsets(): Promise<void> {
    await this.#lane.transaction(client =>
      client.query('UPDATE kafka.consumer_offsets SET committed_at = now() WHERE group_id = $1', [
        this.#definition.group,
      ]),
    );
  }

  async #readTables(): Promise<void> {
    const { rows: parts } = await this.#pool.query<{ id: number; firstSeq: bigint; openedAt: Date }>(
      `SELECT part_id AS id, first_seq AS "firstSeq", opened_at AS "openedAt" FROM kafka.inbox_parts
       WHERE inbox_id = $1 ORDER BY first_seq DESC LIMIT 1`,
      [this.inbox.id],
    );
    const { rows: keys } = await this.#pool.query<KeyTable>(
      `SELECT keys_id AS id, opened_at AS "openedAt" FROM kafka.inbox_key_tables WHERE inbox_id = $1 ORDER BY keys_id DESC`,
      [this.inbox.id],
    );
    this.#part = parts[0]!;
    this.#keys = keys;
    this.inbox.expectPart();
  }
}

const columnsOf =
  (entries: readonly Entry[]) =>
  <K extends keyof Entry>(name: K): Entry[K][] =>
    entries.map(entry => entry[name]);

export const placeKey = ({ topicId, partition }: Place): string => `${topicId}-${partition}`;

/** The row of the inbox up to which an offset tells, where this writer wrote it. */
function toldOf({ metadata }: OffsetRow): bigint | undefined {
  const number = /^seq (\d+)$/.exec(metadata)?.[1];
  return number === undefined ? undefined : BigInt(number);
}
