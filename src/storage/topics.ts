// The topics: kafka.topics and kafka.partitions, with a map of them in memory that every request is answered from.
// A change is written to Postgres first and reaches the map after COMMIT. Changes run one at a time, so each sees
// the outcome of the one before; reads never wait. A Topic is one object for as long as the topic lives: its fields
// follow the changes, and a topic deleted and made again is another object with another id and uuid.
import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import type { Pool } from '../postgres/pool.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { collisionKey, topicNameProblem } from './topic-name.ts';
import { TopicSizes } from './topic-sizes.ts';
import { sqlState, WriteLane } from './write-lane.ts';

export type TopicConfig = Readonly<Record<string, string>>;

export interface Topic {
  readonly id: number;
  readonly uuid: string;
  readonly name: string;
  readonly partitionCount: number;
  /** Overrides only. Another object after every change, so that what is derived from it can be kept beside it. */
  readonly config: TopicConfig;
  /** The mirror through whose target the topic is written to; null where it is written to here. */
  readonly primaryMirror: number | null;
}

export interface NewTopic {
  readonly name: string;
  readonly partitionCount: number;
  readonly config: TopicConfig;
  /** Where each partition begins; all at 0 where it is not said. */
  readonly starts?: readonly bigint[];
}

export interface TopicChange {
  readonly kind: 'created' | 'deleted' | 'altered';
  readonly topic: Topic;
  /** As NewTopic has it. */
  readonly starts?: readonly bigint[] | undefined;
}

/** An outcome that the protocol has a code for; everything else that is thrown is a failure of the database. */
export class TopicError extends Error {
  override name = 'TopicError';
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** The term in which this process may write (leadership.ts). */
export interface Term {
  readonly brokerId: number;
  readonly epoch: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type TopicRow = Mutable<Topic>;

/** The SQLSTATE of kafka.fence. */
export const fencedState = 'KF001';
const columns =
  'topic_id AS id, topic_uuid AS uuid, name, partition_count AS "partitionCount", config, primary_mirror AS "primaryMirror"';

export class Topics {
  readonly sizes: TopicSizes;
  readonly #lane: WriteLane;
  readonly #byName = new Map<string, Mutable<Topic>>();
  readonly #byId = new Map<number, Mutable<Topic>>();
  readonly #byUuid = new Map<string, Mutable<Topic>>();
  readonly #byCollisionKey = new Map<string, Mutable<Topic>>();
  readonly #listeners = new Set<(change: TopicChange) => void>();
  /** Names whose last change may or may not have been committed: its answer was lost. */
  readonly #doubtful = new Set<string>();
  #last: Promise<unknown> = Promise.resolve();

  private constructor(pool: Pool, term: (() => Term) | undefined) {
    this.sizes = new TopicSizes(pool);
    this.#lane = new WriteLane(pool, term);
  }

  /** With `term`, a process whose term is over can no longer change topics. */
  static async load(pool: Pool, term?: () => Term): Promise<Topics> {
    const topics = new Topics(pool, term);
    await topics.reread();
    return topics;
  }

  /** Makes the map agree with the database. Nothing may be changing. */
  async reread(): Promise<void> {
    const { rows } = await this.#lane.run(client =>
      client.query<TopicRow>(`SELECT ${columns} FROM kafka.topics ORDER BY topic_id`),
    );
    const ids = new Set(rows.map(({ id }) => id));
    for (const topic of [...this.#byId.values()]) if (!ids.has(topic.id)) this.#gone(topic);
    for (const row of rows) this.#take(row);
  }

  get(name: string): Topic | undefined {
    return this.#byName.get(name);
  }

  byId(id: number): Topic | undefined {
    return this.#byId.get(id);
  }

  byUuid(uuid: string): Topic | undefined {
    return this.#byUuid.get(uuid);
  }

  all(): Iterable<Topic> {
    return this.#byName.values();
  }

  get size(): number {
    return this.#byName.size;
  }

  /** Calls `listener` after every change, in the order of the changes; what it returns stops that. */
  onChange(listener: (change: TopicChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Whether `create` would take the name; throws a TopicError when not. */
  checkName(name: string): void {
    const problem = topicNameProblem(name);
    if (problem !== undefined) throw new TopicError(ErrorCode.INVALID_TOPIC_EXCEPTION, problem);
    if (this.#byName.has(name)) throw new TopicError(ErrorCode.TOPIC_ALREADY_EXISTS, `topic ${name} already exists`);
    const colliding = this.#byCollisionKey.get(collisionKey(name));
    if (colliding !== undefined) {
      throw new TopicError(
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        `topic ${name} collides with ${colliding.name}: names that differ only in periods and underscores are not told apart in metrics`,
      );
    }
  }

  create({ name, partitionCount, config, starts }: NewTopic): Promise<Topic> {
    return this.#change(name, async () => {
      this.checkName(name);
      const row = await this.#lane.transaction(async client => {
        const { rows } = await client.query<TopicRow>(
          `INSERT INTO kafka.topics (topic_uuid, name, partition_count, config) VALUES ($1, $2, $3, $4)
           ON CONFLICT (name) DO NOTHING RETURNING ${columns}`,
          [newTopicUuid(), name, partitionCount, config],
        );
        const created = rows[0];
        if (created !== undefined) await insertPartitions(client, created.id, 0, partitionCount, starts);
        return created;
      });
      if (row === undefined) {
        await this.#resync(name);
        throw new TopicError(ErrorCode.TOPIC_ALREADY_EXISTS, `topic ${name} already exists`);
      }
      const topic = this.#add(row);
      this.#tell({ kind: 'created', topic, starts });
      return topic;
    });
  }

  delete(topic: Topic): Promise<void> {
    return this.#change(topic.name, async () => {
      this.#living(topic);
      await this.#lane.transaction(async client => {
        // The row first: it waits for a segment being made for the topic (kafka.create_segment locks the row), so
        // that the second statement sees that segment too.
        await client.query('DELETE FROM kafka.topics WHERE topic_id = $1', [topic.id]);
        await client.query(`UPDATE kafka.segments SET state = 'dropping' WHERE topic_id = $1`, [topic.id]);
      });
      this.#gone(topic);
    });
  }

  addPartitions(topic: Topic, newCount: number): Promise<void> {
    return this.#change(topic.name, async () => {
      const living = this.#living(topic);
      checkPartitionIncrease(living, newCount);
      await this.#lane.transaction(async client => {
        await client.query('UPDATE kafka.topics SET partition_count = $2 WHERE topic_id = $1', [topic.id, newCount]);
        await insertPartitions(client, topic.id, living.partitionCount, newCount);
      });
      living.partitionCount = newCount;
      this.#tell({ kind: 'altered', topic });
    });
  }

  /** `change` makes the new overrides of those in force when its turn comes; it may throw a TopicError. */
  setConfig(topic: Topic, change: (overrides: TopicConfig) => TopicConfig): Promise<void> {
    return this.#change(topic.name, async () => {
      const living = this.#living(topic);
      const config = change(living.config);
      await this.#lane.transaction(client =>
        client.query('UPDATE kafka.topics SET config = $2 WHERE topic_id = $1', [topic.id, config]),
      );
      living.config = Object.freeze({ ...config });
      this.#tell({ kind: 'altered', topic });
    });
  }

  /** Who takes what is produced to it: a mirror's target, or (null) this log. Appends are held off meanwhile (AppendGate). */
  setPrimary(topic: Topic, mirrorId: number | null): Promise<void> {
    return this.#change(topic.name, async () => {
      const living = this.#living(topic);
      await this.#lane.transaction(client =>
        client.query('UPDATE kafka.topics SET primary_mirror = $2 WHERE topic_id = $1', [topic.id, mirrorId]),
      );
      living.primaryMirror = mirrorId;
      this.#tell({ kind: 'altered', topic });
    });
  }

  /**
   * Resolves when the topic here is what has committed, also where the answer to a change of it was lost. Rejects while
   * that cannot be asked.
   */
  settled(topic: Topic): Promise<void> {
    return this.#change(topic.name, async () => {});
  }

  #change<T>(name: string, work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(async () => {
      for (const doubtful of [...this.#doubtful]) await this.#resync(doubtful);
      try {
        return await work();
      } catch (error) {
        if (error instanceof TopicError) throw error;
        const state = sqlState(error);
        if (state === undefined) this.#doubtful.add(name);
        if (state !== fencedState) throw error;
        throw new TopicError(ErrorCode.NOT_CONTROLLER, 'this broker does not lead the database at the moment');
      }
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Makes the map agree with the database about one name. */
  async #resync(name: string): Promise<void> {
    const { rows } = await this.#lane.run(client =>
      client.query<TopicRow>(`SELECT ${columns} FROM kafka.topics WHERE name = $1`, [name]),
    );
    const row = rows[0];
    const starts = row && (await this.#startsOf(row.id));
    this.#doubtful.delete(name);
    const known = this.#byName.get(name);
    if (row !== undefined) this.#take(row, starts);
    else if (known !== undefined) this.#gone(known);
  }

  /** As it is in the database. */
  #take(row: TopicRow, starts?: readonly bigint[]): void {
    const known = this.#byName.get(row.name);
    if (known?.id === row.id) {
      known.partitionCount = row.partitionCount;
      known.config = Object.freeze(row.config);
      known.primaryMirror = row.primaryMirror;
      this.#tell({ kind: 'altered', topic: known });
      return;
    }
    if (known !== undefined) this.#gone(known);
    this.#tell({ kind: 'created', topic: this.#add(row), starts });
  }

  #gone(topic: Topic): void {
    this.#remove(topic);
    this.#tell({ kind: 'deleted', topic });
  }

  async #startsOf(topicId: number): Promise<bigint[]> {
    const { rows } = await this.#lane.run(client =>
      client.query<{ start: bigint }>(
        'SELECT log_start_offset AS start FROM kafka.partitions WHERE topic_id = $1 ORDER BY partition_id',
        [topicId],
      ),
    );
    return rows.map(({ start }) => start);
  }

  #living(topic: Topic): Mutable<Topic> {
    const living = this.#byId.get(topic.id);
    if (living !== undefined) return living;
    throw new TopicError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, `topic ${topic.name} has been deleted`);
  }

  #add(row: TopicRow): Mutable<Topic> {
    const topic: Mutable<Topic> = { ...row, config: Object.freeze(row.config) };
    this.#byName.set(topic.name, topic);
    this.#byId.set(topic.id, topic);
    this.#byUuid.set(topic.uuid, topic);
    this.#byCollisionKey.set(collisionKey(topic.name), topic);
    return topic;
  }

  #remove(topic: Topic): void {
    this.#byName.delete(topic.name);
    this.#byId.delete(topic.id);
    this.#byUuid.delete(topic.uuid);
    this.#byCollisionKey.delete(collisionKey(topic.name));
  }

  #tell(change: TopicChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}

/** Throws a TopicError unless `newCount` is more partitions than the topic has. */
export function checkPartitionIncrease(topic: Topic, newCount: number): void {
  if (newCount > topic.partitionCount) return;
  const has = topic.partitionCount === 1 ? '1 partition' : `${topic.partitionCount} partitions`;
  throw new TopicError(
    ErrorCode.INVALID_PARTITIONS,
    newCount === topic.partitionCount
      ? `topic ${topic.name} already has ${has}`
      : `topic ${topic.name} has ${has}; their number can grow, not shrink to ${newCount}`,
  );
}

async function insertPartitions(
  client: pg.PoolClient,
  topicId: number,
  from: number,
  to: number,
  starts: readonly bigint[] = [],
): Promise<void> {
  await client.query(
    `INSERT INTO kafka.partitions (topic_id, partition_id, log_start_offset, next_offset_floor)
     SELECT $1, id, coalesce(start, 0), coalesce(start, 0)
     FROM generate_series($2::int, $3::int - 1) id LEFT JOIN unnest($4::bigint[]) WITH ORDINALITY AS s (start, n) ON n = id + 1`,
    [topicId, from, to, starts],
  );
}

/** Random, and like Kafka's never one whose base64 form begins with a hyphen: command lines take that for an option. */
function newTopicUuid(): string {
  for (;;) {
    const uuid = randomUUID();
    if (!/^f[89ab]/.test(uuid)) return uuid;
  }
}
