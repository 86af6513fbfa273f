// A topic's batches lie in segments: one table for each interval of time (or segment.bytes, if that comes first),
// so that deleting old data is a DROP. States: open (the newest, written to) → rolled (written no more, perhaps
// still by a commit in flight) → sealed (counted and frozen, listed in kafka.segment_partitions) → dropped.
// Only rolled and open segments are kept in memory; the sealed are asked of Postgres. A topic's segments are sealed
// oldest first, so every sealed one is older than every one that is not.
import type { ClientBase } from 'pg';
import type { Pool } from '../postgres/pool.ts';
import { inTransaction } from '../postgres/pool.ts';
import type { Topic } from './topics.ts';

export interface Segment {
  readonly id: number;
  readonly topicId: number;
  /** ms since the Unix epoch. */
  readonly closesAt: number;
  bytes: number;
  maxTimestamp: bigint;
  /** Commits in flight that write to it. */
  pins: number;
}

export interface SegmentRules {
  /** When a segment opened at `now` closes, ms since the Unix epoch. */
  closesAt(topic: Topic, now: number): number;
  maxBytes(topic: Topic): number;
}

/** Where a stretch of a partition lies: offsets from `base` up to, not including, `next`. */
export interface Located {
  readonly segmentId: number;
  readonly base: bigint;
  readonly next: bigint;
}

export class Segments {
  readonly #pool: Pool;
  readonly #fence: (client: ClientBase) => Promise<unknown>;
  readonly #rules: SegmentRules;
  /** Topic id → its segments that are not sealed, oldest first; the last may be open. */
  readonly #unsealed = new Map<number, Segment[]>();
  readonly #rolled = new Set<number>();
  readonly #rolling = new Map<number, Promise<Segment | undefined>>();
  /** Counts up with every segment that leaves `unsealed`. */
  sealings = 0;

  /** `fence` throws, in the transaction it is called in, once this broker's term is over. */
  constructor(pool: Pool, rules: SegmentRules, fence: (client: ClientBase) => Promise<unknown>) {
    this.#pool = pool;
    this.#fence = fence;
    this.#rules = rules;
  }

  async load(): Promise<void> {
    const { rows } = await this.#pool.query<{ segment_id: number; topic_id: number; closes_at: Date; bytes: bigint }>(
      `SELECT segment_id, topic_id, closes_at, pg_table_size('kafka.segment_' || segment_id) AS bytes
       FROM kafka.segments WHERE state = 'open' ORDER BY segment_id`,
    );
    this.#unsealed.clear();
    this.#rolled.clear();
    for (const row of rows) {
      const segment: Segment = {
        id: row.segment_id,
        topicId: row.topic_id,
        closesAt: row.closes_at.getTime(),
        bytes: Number(row.bytes),
        maxTimestamp: -1n,
        pins: 0,
      };
      const before = this.#unsealed.get(segment.topicId);
      if (before) {
        this.#rolled.add(before.at(-1)!.id);
        before.push(segment);
      } else {
        this.#unsealed.set(segment.topicId, [segment]);
      }
    }
  }

  /** The open segment, unless it is time for another. */
  current(topic: Topic, now: number): Segment | undefined {
    const newest = this.#unsealed.get(topic.id)?.at(-1);
    if (newest === undefined || this.#rolled.has(newest.id)) return undefined;
    return now < newest.closesAt && newest.bytes < this.#rules.maxBytes(topic) ? newest : undefined;
  }

  /** Whether it may still be written to: not once it has been rolled, or its topic deleted. */
  isOpen(segment: Segment): boolean {
    return this.#unsealed.get(segment.topicId)?.at(-1) === segment && !this.#rolled.has(segment.id);
  }

  /** Opens the next segment; undefined when the topic has been deleted. */
  roll(topic: Topic, now: number): Promise<Segment | undefined> {
    let rolling = this.#rolling.get(topic.id);
    if (rolling === undefined) {
      rolling = this.#open(topic, now).finally(() => this.#rolling.delete(topic.id));
      this.#rolling.set(topic.id, rolling);
    }
    return rolling;
  }

  async #open(topic: Topic, now: number): Promise<Segment | undefined> {
    const closesAt = this.#rules.closesAt(topic, now);
    const { rows } = await this.#pool.query<{ id: number | null }>('SELECT kafka.create_segment($1, $2) AS id', [
      topic.id,
      new Date(closesAt),
    ]);
    const id = rows[0]!.id;
    if (id === null) return undefined;
    const segment: Segment = { id, topicId: topic.id, closesAt, bytes: 0, maxTimestamp: -1n, pins: 0 };
    const segments = this.#unsealed.get(topic.id) ?? [];
    if (segments.length > 0) this.#rolled.add(segments.at(-1)!.id);
    segments.push(segment);
    this.#unsealed.set(topic.id, segments);
    return segment;
  }

  /** Ends the open segment without opening another: for topics nobody writes to any more. */
  close(segment: Segment): void {
    this.#rolled.add(segment.id);
  }

  /** Segments not sealed yet, oldest first. */
  unsealed(topicId: number): readonly Segment[] {
    return this.#unsealed.get(topicId) ?? [];
  }

  *all(): Iterable<Segment> {
    for (const segments of this.#unsealed.values()) yield* segments;
  }

  /** The sealed segment that holds `offset`, or the first after it. */
  async locate(topicId: number, partition: number, offset: bigint): Promise<Located | undefined> {
    // An index scan over a topic's segments and a primary key probe in each: tens of rows.
    const { rows } = await this.#pool.query<{ segment_id: number; base_offset: bigint; next_offset: bigint }>(
      `SELECT s.segment_id, p.base_offset, p.next_offset
       FROM kafka.segments s JOIN kafka.segment_partitions p USING (segment_id)
       WHERE s.topic_id = $1 AND s.state = 'sealed' AND p.partition_id = $2 AND p.next_offset > $3
       ORDER BY s.segment_id LIMIT 1`,
      [topicId, partition, offset],
    );
    const row = rows[0];
    return row && { segmentId: row.segment_id, base: row.base_offset, next: row.next_offset };
  }

  /** Seals every rolled segment that no commit is writing to. Returns how many. */
  async sealRolled(): Promise<number> {
    let sealed = 0;
    for (const segments of [...this.#unsealed.values()]) {
      while (segments.length > 0 && this.#rolled.has(segments[0]!.id) && segments[0]!.pins === 0) {
        const segment = segments[0]!;
        const there = await this.#seal(segment);
        segments.shift();
        this.sealings++;
        this.#rolled.delete(segment.id);
        sealed++;
        // Never written again, so freezing it now spares an anti-wraparound vacuum later. After the lists are right: it
        // may fail, and the segment is sealed all the same.
        if (there) await this.#pool.query(`VACUUM (FREEZE, INDEX_CLEANUP OFF) ${tableOf(segment.id)}`);
      }
    }
    return sealed;
  }

  /**
   * Seals the open segments that are not known here: when the answer to create_segment is lost, the next try makes another.
   * Nobody can have written to such a one. Those being made now are let be. Returns how many.
   */
  async sealStrays(): Promise<number> {
    const rolling = new Set(this.#rolling.keys());
    const { rows } = await this.#pool.query<{ id: number; topic_id: number }>(
      `SELECT segment_id AS id, topic_id FROM kafka.segments WHERE state = 'open'`,
    );
    let sealed = 0;
    for (const { id, topic_id: topicId } of rows) {
      if (rolling.has(topicId) || this.#rolling.has(topicId)) continue;
      if (this.unsealed(topicId).some(segment => segment.id === id)) continue;
      if (await this.#seal({ id })) sealed++;
    }
    return sealed;
  }

  /** False when its topic has been deleted meanwhile. */
  #seal(segment: Pick<Segment, 'id'>): Promise<boolean> {
    return inTransaction(this.#pool, async client => {
      await this.#fence(client); // a later leader may be writing to what this one takes for rolled
      // A topic's deletion may have come first; its segment is then 'dropping' and stays so.
      const { rowCount } = await client.query(
        `UPDATE kafka.segments SET state = 'sealed' WHERE segment_id = $1 AND state = 'open'`,
        [segment.id],
      );
      if (rowCount === 0) return false;
      // octet_length of an EXTERNAL value reads its toast pointer, not the value.
      await client.query(
        `INSERT INTO kafka.segment_partitions (segment_id, partition_id, base_offset, next_offset, max_timestamp, bytes)
         SELECT $1, partition_id, min(base_offset), max(last_offset) + 1, max(max_timestamp), sum(octet_length(records))
         FROM ${tableOf(segment.id)} GROUP BY partition_id`,
        [segment.id],
      );
      return true;
    });
  }

  /** Drops the tables of segments that are past retention or whose topic is gone. Returns how many. */
  async dropDoomed(): Promise<number> {
    const { rows } = await this.#pool.query<{ segment_id: number }>(
      `SELECT segment_id FROM kafka.segments WHERE state = 'dropping' ORDER BY segment_id`,
    );
    let dropped = 0;
    let failure: Error | undefined;
    for (const { segment_id: id } of rows) {
      try {
        await inTransaction(this.#pool, async client => {
          // Behind a long query on this very table the DROP waits for the next round instead of queueing readers.
          await client.query(`SET LOCAL lock_timeout = '2s'`);
          await client.query(`DROP TABLE IF EXISTS ${tableOf(id)}`);
          await client.query('DELETE FROM kafka.segments WHERE segment_id = $1', [id]);
        });
        dropped++;
      } catch (error) {
        // One that something of the user's depends on must not keep the others.
        if ((error as { code?: string }).code !== '55P03') failure ??= error as Error;
      }
    }
    if (failure) throw failure;
    return dropped;
  }

  forget(topicId: number): void {
    for (const segment of this.#unsealed.get(topicId) ?? []) this.#rolled.delete(segment.id);
    this.#unsealed.delete(topicId);
  }
}

export const tableOf = (segmentId: number): string => `kafka.segment_${segmentId}`;
