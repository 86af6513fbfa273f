// What is written to an inbox, by the one process that leads the log: its parts and key tables in their turns, rows, and
// how far its topics have been read with them. A writer whose term is over is refused by the fence.
//
// The rows tell themselves how far each partition has been read. Offsets (positions.ts) are written in the transaction of
// rows too, but once a second at most, with the number of the row they tell of: a row that is updated by every transaction
// would leave a dead version each time, and become slow to find while an old snapshot holds them.
import type pg from 'pg';
import type { CopyPayload } from '../postgres/copy.ts';
import { copyIn } from '../postgres/copy-in.ts';
import type { Pool } from '../postgres/pool.ts';
import type { Term } from '../storage/topics.ts';
import { sqlState, WriteLane } from '../storage/write-lane.ts';
import type { InboxDefinition } from './definition.ts';
import type { Entry } from './event.ts';
import { Inbox } from './inbox.ts';
import { GroupPositions, type Move, type Place, type Positions, RemotePositions } from './positions.ts';
import { eventColumns, eventRows, waitingColumns, waitingRows } from './rows.ts';
import { describeWebhook } from './webhooks/description.ts';

interface KeyTable {
  readonly id: number;
  readonly openedAt: Date;
}

/** An inbox has so many parts while it is filled all the time. */
const partsOfRetention = 24;
const minPartMs = 60_000;
const maxPartMs = 86_400_000;
const dropLockMs = 1000;
/** SQLSTATE of kafka.inbox_admit. */
const someKnown = 'KF003';

export class Appender {
  readonly inbox: Inbox;
  readonly #pool: Pool;
  readonly #definition: InboxDefinition;
  readonly #term: () => Term;
  readonly #lane: WriteLane;
  readonly #positions: Positions;
  #part = { id: -1, firstSeq: 1n, openedAt: new Date(0) };
  #keys: readonly KeyTable[] = [];
  #next = 1n;
  /** The batch before held nothing that was known, so it is worth trying whether this one does. */
  #expectsNew = true;
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
    const { source, group } = definition;
    this.#positions = source === undefined ? new GroupPositions(group) : new RemotePositions(inbox.id, group);
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

  /** Whether there are positions in topics of the remote cluster. */
  async hasRead(clusterId: string): Promise<boolean> {
    const { rowCount } = await this.#pool.query(
      `SELECT FROM kafka.inbox_positions JOIN kafka.remote_topics ON remote_topic_id = topic_id
       WHERE inbox_id = $1 AND group_id = $2 AND cluster_id = $3 LIMIT 1`,
      [this.inbox.id, this.#definition.group, clusterId],
    );
    return rowCount === 1;
  }

  /** How far each partition has been read; of those that are new to the group, `begin` tells. */
  async positions(begin: readonly (Place & { readonly offset: bigint })[]): Promise<Map<string, Move>> {
    const positions = this.#positions;
    let since = 0n;
    const stored = await this.#lane.transaction(async client => {
      // The newest is true of all: those that had not moved were not written.
      const told = (await positions.read(client)).flatMap(row => row.told ?? []);
      if (told.length === 0) since = this.#next - 1n;
      for (const seq of told) if (seq > since) since = seq;
      await positions.insert(client, begin, since);
      return positions.read(client);
    });
    const read = await this.#readSince(since);
    return new Map(
      stored.map(({ topicId, partition, offset, told }) => {
        const place = { topicId, partition };
        // Somebody else who moves the group's offsets leaves no number: then it goes on where they say.
        const next = told === undefined ? undefined : read.get(placeKey(place));
        return [
          placeKey(place),
          { ...place, expected: offset, next: next !== undefined && next > offset ? next : offset },
        ];
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
   * In one transaction: what is due becomes rows, the rest waits. Returns those that are due and new, the number of the
   * first of them, and how many wait. Throws where somebody else has moved what is stored of how far has been read.
   */
  async append(
    entries: readonly Entry[],
    moves: readonly Move[],
  ): Promise<{ fresh: readonly Entry[]; first: bigint; waiting: number }> {
    // What has been released up to a time is not looked at again, though the clock is set back.
    const now = Math.max(Date.now(), this.#releasedTo);
    const waiting = entries.filter(({ due }) => due !== null && due > now);
    const due = waiting.length === 0 ? entries : entries.filter(entry => !waiting.includes(entry));
    const first = this.#next;
    const fresh =
      this.#expectsNew && moves.length === 0 && (await this.#lane.run(client => this.#appendNew(client, due, waiting)))
        ? due
        : await this.#lane.transaction(async client => {
            if (moves.length > 0) await this.#positions.move(client, moves, first - 1n);
            const { rows } = await client.query<{ known: number[] }>(`${this.#admit(due, false)} AS known`);
            const known = new Set(rows[0]!.known);
            const admitted = known.size === 0 ? due : due.filter((_, i) => !known.has(i + 1));
            const { sql, copies } = this.#copy(admitted, waiting);
            if (copies.length > 0) await copyIn(client, sql, copies);
            this.#expectsNew = known.size === 0;
            return admitted;
          });
    this.#next = first + BigInt(fresh.length);
    for (const entry of waiting) this.#nextDue = Math.min(this.#nextDue, entry.due!);
    return { fresh, first, waiting: waiting.length };
  }

  /**
   * The whole transaction in one round trip, so that Postgres does all of it while this process does something else. False,
   * and nothing done, where a key is known already.
   */
  async #appendNew(client: pg.PoolClient, due: readonly Entry[], waiting: readonly Entry[]): Promise<boolean> {
    const { brokerId, epoch } = this.#term();
    const { sql, copies } = this.#copy(due, waiting);
    const statements = ['BEGIN', `SELECT kafka.fence(${brokerId}, ${epoch})`, this.#admit(due, true), sql, 'COMMIT'];
    try {
      await copyIn(client, statements.join('; '), copies);
      return true;
    } catch (error) {
      const state = sqlState(error);
      if (state !== undefined) await client.query('ROLLBACK');
      if (state !== someKnown) throw error;
      this.#expectsNew = false;
      return false;
    }
  }

  /** Literals, all of them our own digits. */
  #admit(entries: readonly Entry[], allNew: boolean): string {
    const [newest, ...older] = this.#keys.map(({ id }) => id);
    return `SELECT kafka.inbox_admit(${newest}, '{${older}}', '{${entries.map(({ key }) => key).join()}}', ${allNew})`;
  }

  #copy(events: readonly Entry[], waiting: readonly Entry[]): { sql: string; copies: CopyPayload[] } {
    const sql: string[] = [];
    const copies: CopyPayload[] = [];
    if (events.length > 0) {
      const end = this.#next + BigInt(events.length) - 1n;
      sql.push(`COPY kafka.inbox_part_${this.#part.id} (${eventColumns}) FROM STDIN (FORMAT binary)`);
      copies.push(eventRows(events, this.#next));
      // Once for a transaction: a notification takes a lock that all committers share.
      sql.push(`SELECT pg_notify('millrace_inbox', '${this.inbox.id} ${this.#part.id} ${end}')`);
    }
    if (waiting.length > 0) {
      sql.push(`COPY kafka.inbox_waiting (${waitingColumns}) FROM STDIN (FORMAT binary)`);
      copies.push(waitingRows(waiting, this.inbox.id));
    }
    return { sql: sql.join('; '), copies };
  }

  /** ms until something is due; 0 where it is. */
  untilDue(now = Date.now()): number {
    return Math.max(0, this.#nextDue - now);
  }

  /** Takes what is due into the inbox, at most so many: how many it were, and how many of them are new there. */
  async release(atMost: number, now = Date.now()): Promise<{ taken: number; fresh: number }> {
    const { brokerId, epoch } = this.#term();
    const [newest, ...older] = this.#keys.map(({ id }) => id);
    const { rows } = await this.#lane.run(client =>
      client.query<{ taken: number; fresh: number }>(
        `SELECT taken, fresh FROM kafka.inbox_release($1, $2, $3, $4, $5, $6, $7, to_timestamp($8 / 1000.0),
           to_timestamp($9 / 1000.0), $10)`,
        [brokerId, epoch, this.inbox.id, this.#part.id, newest, older, this.#next, this.#releasedTo, now, atMost],
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
    await this.#lane.transaction(async client => this.#positions.keep?.(client));
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

export const placeKey = ({ topicId, partition }: Place): string => `${topicId}-${partition}`;
