// How far a sink has come. The offset moves in the transaction that writes the rows, and only from where this sink believes
// it to be: who writes on after somebody else has moved it, or whose term as the leader is over, commits nothing. So a
// record is written once over any crash, and by one Millrace.
//   in the log's own database   kafka.consumer_offsets, as a consumer group that Kafka's tools show and reset; fenced
//   in another database         a table of its own there, and the group's offsets follow it
import type { ClientBase } from 'pg';
import type { Pool } from '../postgres/pool.ts';
import type { Session } from '../postgres/session.ts';
import type { SourceTopic } from '../source/source.ts';
import type { Term } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';

export interface Position {
  readonly topic: SourceTopic;
  readonly partition: number;
  readonly offset: bigint;
}

export interface Move {
  readonly topic: SourceTopic;
  readonly partition: number;
  readonly expected: bigint;
  readonly next: bigint;
}

export interface Progress {
  /** Whether the sink has been anywhere. */
  known(): Promise<boolean>;
  /** The next offset of each partition; those that the sink has never read begin at the offset given, which is stored. */
  begin(positions: readonly Position[]): Promise<bigint[]>;
  /** Forgets where it was and goes on from the positions given; only while the sink does not run. */
  reset(positions: readonly Position[]): Promise<void>;
  /** In the transaction that is open on `session`. Throws OffsetsMoved where they are not where they are expected. */
  move(session: Session, moves: readonly Move[]): Promise<void>;
  /** After the COMMIT. */
  moved(moves: readonly Move[]): Promise<void>;
}

/** Somebody else has moved the group's offsets: a tool that reset them, or another sink of this name. */
export class OffsetsMoved extends Error {
  override name = 'OffsetsMoved';
  override message = 'the committed offsets have been moved';
}

export interface OwnProgressOptions {
  readonly pool: Pool;
  readonly term: () => Term;
  readonly group: string;
  readonly sinkId: number;
}

const array = (values: readonly (string | number | bigint)[]): string => `{${values.join(',')}}`;
const arraysOf = (moves: readonly Move[]): string[] => [
  array(moves.map(({ topic }) => topic.id)),
  array(moves.map(({ partition }) => partition)),
  array(moves.map(({ expected }) => expected)),
  array(moves.map(({ next }) => next)),
];

// The fence comes last before COMMIT: a transaction that waits for a lock of somebody's on the table keeps no new term
// waiting.
const advance = `
  WITH fence AS MATERIALIZED (SELECT kafka.fence($6::int, $7::int)),
  given AS (SELECT * FROM unnest($2::int[], $3::int[], $4::bigint[], $5::bigint[]) AS g (topic_id, partition_id, expected, next)),
  moved AS (
    UPDATE kafka.consumer_offsets o SET committed_offset = next, committed_at = now() FROM given g, fence
    WHERE group_id = $1 AND o.topic_id = g.topic_id AND o.partition_id = g.partition_id AND committed_offset = expected
    RETURNING 1),
  passed AS (
    DELETE FROM kafka.sink_dead_letters d USING given g
    WHERE sink_id = $8::int AND d.topic_id = g.topic_id AND d.partition_id = g.partition_id AND record_offset < next)
  SELECT count(*) FROM moved`;

export class OwnProgress implements Progress {
  readonly #options: OwnProgressOptions;
  readonly #lane: WriteLane;

  constructor(options: OwnProgressOptions) {
    this.#options = options;
    this.#lane = new WriteLane(options.pool, options.term);
  }

  async known(): Promise<boolean> {
    const { pool, group } = this.#options;
    const { rowCount } = await pool.query('SELECT FROM kafka.consumer_offsets WHERE group_id = $1 LIMIT 1', [group]);
    return rowCount === 1;
  }

  async begin(positions: readonly Position[]): Promise<bigint[]> {
    const { group } = this.#options;
    const topics = positions.map(({ topic }) => topic.id);
    const partitions = positions.map(({ partition }) => partition);
    const { rows } = await this.#lane.transaction(async client => {
      await insertMissing(client, group, positions);
      return client.query<{ offset: bigint }>(
        `SELECT committed_offset AS offset
         FROM unnest($2::int[], $3::int[]) WITH ORDINALITY AS w (topic_id, partition_id, n)
         JOIN kafka.consumer_offsets o USING (topic_id, partition_id) WHERE group_id = $1 ORDER BY n`,
        [group, topics, partitions],
      );
    });
    if (rows.length !== positions.length) throw new OffsetsMoved(); // a topic has been deleted meanwhile
    return rows.map(row => row.offset);
  }

  async reset(positions: readonly Position[]): Promise<void> {
    const { group, sinkId } = this.#options;
    await this.#lane.transaction(async client => {
      await client.query('DELETE FROM kafka.consumer_offsets WHERE group_id = $1', [group]);
      await client.query('DELETE FROM kafka.sink_dead_letters WHERE sink_id = $1', [sinkId]);
      await insertMissing(client, group, positions);
    });
  }

  async move(session: Session, moves: readonly Move[]): Promise<void> {
    const { group, sinkId, term } = this.#options;
    const { brokerId, epoch } = term();
    const { rows } = await session.query(advance, [group, ...arraysOf(moves), brokerId, epoch, sinkId]);
    if (rows[0]![0]!.readBigInt64BE() !== BigInt(moves.length)) throw new OffsetsMoved();
  }

  async moved(): Promise<void> {}
}

async function insertMissing(client: ClientBase, group: string, positions: readonly Position[]): Promise<void> {
  const topics = positions.map(({ topic }) => topic.id);
  const partitions = positions.map(({ partition }) => partition);
  const offsets = positions.map(({ offset }) => offset);
  // Topics first, as everything that writes offsets locks them (src/storage/offsets.ts).
  await client.query(
    `WITH live AS MATERIALIZED (
       SELECT topic_id FROM kafka.topics WHERE topic_id = ANY ($2::int[]) ORDER BY topic_id FOR KEY SHARE)
     INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset)
     SELECT $1, topic_id, partition_id, next FROM unnest($2::int[], $3::int[], $4::bigint[]) AS g (topic_id, partition_id, next)
     JOIN live USING (topic_id) ORDER BY topic_id, partition_id
     ON CONFLICT DO NOTHING`,
    [group, topics, partitions, offsets],
  );
}
