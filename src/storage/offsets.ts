// Committed offsets: kafka.consumer_offsets is the truth, and nothing of it is kept here. Commits are written by group
// commit: while one statement runs, commits gather, and the next statement takes them all (of a key the last one).
// A commit resolves after COMMIT. Who may commit is the coordinator's affair (src/broker/groups/).
import type pg from 'pg';
import type { Logger } from 'pino';
import type { Pool } from '../postgres/pool.ts';
import type { Term } from './topics.ts';
import { cannotBeStored, StorageError, sqlState, WriteLane } from './write-lane.ts';

export interface CommittedOffset {
  readonly topicId: number;
  readonly partition: number;
  /** The next offset to read. */
  readonly offset: bigint;
  readonly leaderEpoch: number;
  readonly metadata: string;
}

export interface OffsetsWanted {
  readonly groupId: string;
  /** `null` asks for all of them. */
  readonly topicIds: readonly number[] | null;
}

export interface OffsetsOptions {
  readonly pool: Pool;
  readonly logger: Logger;
  readonly term?: () => Term;
  /** Commits that may wait for the database, in bytes of memory, before more are refused. */
  readonly maxQueuedBytes?: number;
}

interface Commit {
  readonly groupId: string;
  readonly offsets: readonly CommittedOffset[];
  resolve(goneTopics: ReadonlySet<number>): void;
  reject(error: Error): void;
}

const bytesOfCommit = 200;
const bytesOfOffset = 120;
const maxAttempts = 3;
const expireBatch = 10_000;

// The topics' rows are locked before any offset's, as deleting a topic does, so that the two wait for each other and
// neither deadlocks nor breaks the foreign key; a topic that is gone is left out, and its commits are told. Rows go
// in by key order. The update is HOT (no index on what changes, fillfactor 50). fence: see migrations/0001_log.sql.
const upsert = `
  WITH fence AS MATERIALIZED (SELECT kafka.fence($1, $2) WHERE $1::int IS NOT NULL),
  live AS MATERIALIZED (
    SELECT topic_id FROM kafka.topics LEFT JOIN fence ON true
    WHERE topic_id = ANY ($3::int[]) ORDER BY topic_id FOR KEY SHARE OF topics),
  written AS (
    INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset, leader_epoch, metadata)
    SELECT group_id, topic_id, partition_id, committed_offset, leader_epoch, metadata
    FROM unnest($4::text[], $5::int[], $6::int[], $7::bigint[], $8::int[], $9::bytea[])
      AS given (group_id, topic_id, partition_id, committed_offset, leader_epoch, metadata)
    JOIN live USING (topic_id)
    ORDER BY group_id, topic_id, partition_id
    ON CONFLICT (group_id, topic_id, partition_id) DO UPDATE
      SET committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch,
          metadata = excluded.metadata, committed_at = now())
  SELECT topic_id FROM live`;

const columns = `group_id, topic_id, partition_id, committed_offset, leader_epoch, metadata`;
const select = `
  SELECT ${columns} FROM kafka.consumer_offsets WHERE group_id = ANY ($1::text[])
  UNION ALL
  SELECT ${columns} FROM kafka.consumer_offsets
  JOIN unnest($2::text[], $3::int[]) AS wanted (group_id, topic_id) USING (group_id, topic_id)
  ORDER BY topic_id, partition_id`;

// Hops from one group's first index entry to the next: as many index descents as there are groups, however many
// offsets each has.
const selectGroups = `
  WITH RECURSIVE groups AS (
    (SELECT group_id FROM kafka.consumer_offsets ORDER BY group_id LIMIT 1)
    UNION ALL
    SELECT (SELECT o.group_id FROM kafka.consumer_offsets o WHERE o.group_id > g.group_id ORDER BY o.group_id LIMIT 1)
    FROM groups g WHERE g.group_id IS NOT NULL)
  SELECT group_id FROM groups WHERE group_id IS NOT NULL`;

interface OffsetRow {
  group_id: string;
  topic_id: number;
  partition_id: number;
  committed_offset: bigint;
  leader_epoch: number;
  metadata: Buffer;
}

export class Offsets {
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #lane: WriteLane;
  readonly #maxQueuedBytes: number;
  /** Takes commits until its turn comes, or until something else is asked for that must follow them. */
  #gathering: Commit[] | undefined;
  #queuedBytes = 0;

  constructor({ pool, logger, term, maxQueuedBytes = 16 * 1024 * 1024 }: OffsetsOptions) {
    this.#pool = pool;
    this.#logger = logger;
    this.#lane = new WriteLane(pool, term);
    this.#maxQueuedBytes = maxQueuedBytes;
  }

  /** Resolves after COMMIT, with those of the topics that no longer exist. Throws StorageError, as all do here. */
  async commit(groupId: string, offsets: readonly CommittedOffset[]): Promise<ReadonlySet<number>> {
    let bytes = bytesOfCommit + groupId.length;
    for (const { metadata } of offsets) bytes += bytesOfOffset + metadata.length;
    if (this.#queuedBytes + bytes > this.#maxQueuedBytes) {
      throw new StorageError('too many offset commits are waiting for the database');
    }
    this.#queuedBytes += bytes;
    try {
      return await new Promise((resolve, reject) => {
        this.#gather().push({ groupId, offsets, resolve, reject });
      });
    } finally {
      this.#queuedBytes -= bytes;
    }
  }

  /** The committed offsets by group, in order of topic and partition. One query. */
  async fetch(wanted: readonly OffsetsWanted[]): Promise<Map<string, CommittedOffset[]>> {
    const whole: string[] = [];
    const groups: string[] = [];
    const topics: number[] = [];
    const pairs = new Set<string>();
    for (const { groupId, topicIds } of wanted) {
      if (topicIds === null && !whole.includes(groupId)) whole.push(groupId);
    }
    for (const { groupId, topicIds } of wanted) {
      if (whole.includes(groupId)) continue;
      for (const topicId of topicIds ?? []) {
        const pair = `${topicId} ${groupId}`;
        if (pairs.has(pair)) continue;
        pairs.add(pair);
        groups.push(groupId);
        topics.push(topicId);
      }
    }
    const { rows } = await this.#read(() =>
      this.#pool.query<OffsetRow>({ name: 'offsets-fetch', text: select, values: [whole, groups, topics] }),
    );
    const found = new Map<string, CommittedOffset[]>();
    for (const row of rows) {
      const offsets = found.get(row.group_id) ?? [];
      found.set(row.group_id, offsets);
      offsets.push({
        topicId: row.topic_id,
        partition: row.partition_id,
        offset: row.committed_offset,
        leaderEpoch: row.leader_epoch,
        metadata: row.metadata.toString(),
      });
    }
    return found;
  }

  /** Resolves when the commits asked for so far have been committed or have failed. */
  async settled(): Promise<void> {
    if (this.#queuedBytes > 0) await this.#lane.idle();
  }

  /** Every group that has committed offsets. */
  async groups(): Promise<string[]> {
    const { rows } = await this.#read(() => this.#pool.query<{ group_id: string }>(selectGroups));
    return rows.map(row => row.group_id);
  }

  /** Which of `groupIds` have committed offsets. */
  async withOffsets(groupIds: readonly string[]): Promise<Set<string>> {
    const { rows } = await this.#read(() =>
      this.#pool.query<{ group_id: string }>(
        `SELECT group_id FROM unnest($1::text[]) AS wanted (group_id)
         WHERE EXISTS (SELECT FROM kafka.consumer_offsets o WHERE o.group_id = wanted.group_id)`,
        [groupIds],
      ),
    );
    return new Set(rows.map(row => row.group_id));
  }

  async delete(groupId: string, offsets: readonly { topicId: number; partition: number }[]): Promise<void> {
    await this.#change(client =>
      client.query(
        `DELETE FROM kafka.consumer_offsets WHERE group_id = $1
           AND (topic_id, partition_id) IN (SELECT * FROM unnest($2::int[], $3::int[]))`,
        [groupId, offsets.map(({ topicId }) => topicId), offsets.map(({ partition }) => partition)],
      ),
    );
  }

  /** Deletes all offsets of the groups; returns those that had any. */
  async deleteGroups(groupIds: readonly string[]): Promise<Set<string>> {
    const { rows } = await this.#change(client =>
      client.query<{ group_id: string }>(
        `WITH gone AS (DELETE FROM kafka.consumer_offsets WHERE group_id = ANY ($1::text[]) RETURNING group_id)
         SELECT DISTINCT group_id FROM gone`,
        [groupIds],
      ),
    );
    return new Set(rows.map(row => row.group_id));
  }

  /**
   * Deletes offsets committed longer than `retentionMs` ago: of groups that are not `live` once the group has been
   * empty as long, and of live groups in `subscriptions` where they no longer subscribe to the topic.
   */
  async expire(
    retentionMs: number,
    live: readonly string[],
    subscriptions: readonly { groupId: string; topicIds: readonly number[] }[],
  ): Promise<number> {
    const old = `committed_at < now() - $1 * interval '1 millisecond'`;
    const subscribed = subscriptions.flatMap(({ groupId, topicIds }) =>
      topicIds.map(topicId => ({ groupId, topicId })),
    );
    const conditions: [string, unknown[]][] = [
      [
        // A group that consumers have used has a row, and updated_at there is when it became empty.
        `group_id <> ALL ($2::text[]) AND NOT EXISTS (
           SELECT FROM kafka.consumer_groups g WHERE g.group_id = o.group_id
           AND (g.members <> '[]' OR g.updated_at >= now() - $1 * interval '1 millisecond'))`,
        [live],
      ],
      [
        `group_id = ANY ($2::text[]) AND (group_id, topic_id) NOT IN (SELECT * FROM unnest($3::text[], $4::int[]))`,
        [
          subscriptions.map(({ groupId }) => groupId),
          subscribed.map(({ groupId }) => groupId),
          subscribed.map(({ topicId }) => topicId),
        ],
      ],
    ];
    let expired = 0;
    for (const [condition, values] of conditions) {
      // In pieces, so that commits are not kept waiting.
      for (let count = expireBatch; count === expireBatch; expired += count) {
        const { rowCount } = await this.#change(client =>
          client.query(
            `DELETE FROM kafka.consumer_offsets WHERE ctid = ANY (ARRAY(
               SELECT ctid FROM kafka.consumer_offsets o WHERE ${old} AND ${condition} LIMIT ${expireBatch}))`,
            [retentionMs, ...values],
          ),
        );
        count = rowCount ?? 0;
      }
    }
    return expired;
  }

  /** Resolves when nothing is being written any more. */
  async idle(): Promise<void> {
    await this.#lane.idle();
  }

  #gather(): Commit[] {
    if (this.#gathering) return this.#gathering;
    const commits: Commit[] = [];
    this.#gathering = commits;
    this.#lane
      .run(async client => {
        if (this.#gathering === commits) this.#gathering = undefined;
        await this.#write(client, commits);
      })
      .catch((error: Error) => {
        if (this.#gathering === commits) this.#gathering = undefined;
        this.#fail(commits, error);
      });
    return commits;
  }

  async #write(client: pg.PoolClient, commits: readonly Commit[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const live = await this.#upsert(client, commits);
        for (const { offsets, resolve } of commits) {
          resolve(new Set(offsets.map(({ topicId }) => topicId).filter(topicId => !live.has(topicId))));
        }
        return;
      } catch (error) {
        const state = sqlState(error);
        if (state === undefined) throw error;
        // A deadlock, a serialization failure, or the foreign key broken by a transaction that does not lock as we do.
        if (/^(40001|40P01|23503)$/.test(state) && attempt < maxAttempts) continue;
        // Something that cannot be stored, such as a character the database's encoding lacks: it must not fail others.
        if (cannotBeStored(error) && commits.length > 1) {
          const middle = commits.length >> 1;
          await this.#write(client, commits.slice(0, middle));
          await this.#write(client, commits.slice(middle));
          return;
        }
        this.#fail(commits, error as Error);
        return;
      }
    }
  }

  /** Returns those of the topics that exist. */
  async #upsert(client: pg.PoolClient, commits: readonly Commit[]): Promise<Set<number>> {
    const last = new Map<string, [groupId: string, offset: CommittedOffset]>();
    for (const { groupId, offsets } of commits) {
      for (const offset of offsets) last.set(`${offset.topicId} ${offset.partition} ${groupId}`, [groupId, offset]);
    }
    const rows = [...last.values()];
    const topicIds = [...new Set(rows.map(([, { topicId }]) => topicId))];
    const { term } = this.#lane;
    const result = await client.query<{ topic_id: number }>({
      name: 'offsets-commit',
      text: upsert,
      values: [
        term?.brokerId,
        term?.epoch,
        topicIds,
        rows.map(([groupId]) => groupId),
        rows.map(([, { topicId }]) => topicId),
        rows.map(([, { partition }]) => partition),
        rows.map(([, { offset }]) => offset),
        rows.map(([, { leaderEpoch }]) => leaderEpoch),
        rows.map(([, { metadata }]) => Buffer.from(metadata)),
      ],
    });
    return new Set(result.rows.map(row => row.topic_id));
  }

  #fail(commits: readonly Commit[], cause: Error): void {
    const error = new StorageError('could not write committed offsets', cause);
    this.#logger.error({ err: cause, commits: commits.length }, 'could not write committed offsets');
    for (const { reject } of commits) reject(error);
  }

  async #change<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    this.#gathering = undefined; // commits that come later are written later
    try {
      return await this.#lane.transaction(work);
    } catch (error) {
      this.#logger.error({ err: error }, 'could not delete committed offsets');
      throw new StorageError('could not delete committed offsets', error as Error);
    }
  }

  async #read<T>(query: () => Promise<T>): Promise<T> {
    try {
      return await query();
    } catch (error) {
      this.#logger.error({ err: error }, 'could not read committed offsets');
      throw new StorageError('could not read committed offsets', error as Error);
    }
  }
}
