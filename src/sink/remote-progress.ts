// Progress of a sink into another database, or out of a remote Kafka: a table in the target, moved in the transaction that
// writes the rows. The group's offsets, in the log or in the remote Kafka, follow after each COMMIT, so that Kafka's tools
// show them; what counts is the table.
import type { ClientBase } from 'pg';
import type { Logger } from 'pino';
import type { Pool } from '../postgres/pool.ts';
import type { Session } from '../postgres/session.ts';
import type { RemoteGroup } from '../source/remote-group.ts';
import type { Term } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { type Move, OffsetsMoved, type Position, type Progress } from './progress.ts';

export interface RemoteProgressOptions {
  /** Of the log's database. */
  readonly pool: Pool;
  /** Of the target's. */
  readonly target: Pool;
  readonly term: () => Term;
  readonly group: string;
  readonly sinkId: number;
  readonly logger: Logger;
  /** Where topics are not this log's. */
  readonly remote?: RemoteGroup | undefined;
}

const table = 'millrace_sink_progress';

// By the log's cluster id and the topic's uuid: another log, or a topic made again under the same name, is another one.
const createTable = `
  CREATE TABLE IF NOT EXISTS ${table} (
    cluster_id   text NOT NULL,
    group_id     text NOT NULL,
    topic_uuid   uuid NOT NULL,
    partition_id int NOT NULL,
    topic        text NOT NULL,
    next_offset  bigint NOT NULL,
    moved_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, group_id, topic_uuid, partition_id)
  ) WITH (fillfactor = 50)`;

const advance = `
  WITH moved AS (
    UPDATE ${table} p SET next_offset = next, moved_at = now()
    FROM unnest($3::uuid[], $4::int[], $5::bigint[], $6::bigint[]) AS g (topic_uuid, partition_id, expected, next)
    WHERE cluster_id = $1 AND group_id = $2 AND p.topic_uuid = g.topic_uuid AND p.partition_id = g.partition_id
      AND next_offset = expected
    RETURNING 1)
  SELECT count(*) FROM moved`;

const array = (values: readonly (string | number | bigint)[]): string => `{${values.join(',')}}`;

export class RemoteProgress implements Progress {
  readonly #options: RemoteProgressOptions;
  readonly #lane: WriteLane;
  #clusterId = '';

  private constructor(options: RemoteProgressOptions) {
    this.#options = options;
    this.#lane = new WriteLane(options.pool, options.term);
  }

  /** Makes the table where there is none. */
  static async open(options: RemoteProgressOptions): Promise<RemoteProgress> {
    const progress = new RemoteProgress(options);
    progress.#clusterId = options.remote?.clusterId ?? (await ownClusterId(options.pool));
    const { rows } = await options.target.query<{ there: boolean }>(
      `SELECT to_regclass('${table}') IS NOT NULL AS there`,
    );
    if (!rows[0]!.there) await options.target.query(createTable);
    return progress;
  }

  async known(): Promise<boolean> {
    const { target, group } = this.#options;
    const { rowCount } = await target.query(`SELECT FROM ${table} WHERE cluster_id = $1 AND group_id = $2 LIMIT 1`, [
      this.#clusterId,
      group,
    ]);
    return rowCount === 1;
  }

  async begin(positions: readonly Position[]): Promise<bigint[]> {
    await this.#insert(this.#options.target, positions);
    const { rows } = await this.#options.target.query<{ offset: bigint }>(
      `SELECT next_offset AS offset FROM unnest($3::uuid[], $4::int[]) WITH ORDINALITY AS w (topic_uuid, partition_id, n)
       JOIN ${table} USING (topic_uuid, partition_id) WHERE cluster_id = $1 AND group_id = $2 ORDER BY n`,
      [
        this.#clusterId,
        this.#options.group,
        positions.map(({ topic }) => topic.uuid),
        positions.map(({ partition }) => partition),
      ],
    );
    if (rows.length !== positions.length) throw new OffsetsMoved();
    const offsets = rows.map(row => row.offset);
    await this.moved(
      positions.map(({ topic, partition }, i) => ({ topic, partition, expected: 0n, next: offsets[i]! })),
    );
    return offsets;
  }

  async reset(positions: readonly Position[]): Promise<void> {
    const { target, group, sinkId, pool } = this.#options;
    await target.query(`DELETE FROM ${table} WHERE cluster_id = $1 AND group_id = $2`, [this.#clusterId, group]);
    await this.#insert(target, positions);
    await pool.query('DELETE FROM kafka.sink_dead_letters WHERE sink_id = $1', [sinkId]);
  }

  async #insert(client: Pool | ClientBase, positions: readonly Position[]): Promise<void> {
    await client.query(
      `INSERT INTO ${table} (cluster_id, group_id, topic_uuid, partition_id, topic, next_offset)
       SELECT $1, $2, topic_uuid, partition_id, topic, next
       FROM unnest($3::uuid[], $4::int[], $5::text[], $6::bigint[]) AS g (topic_uuid, partition_id, topic, next)
       ON CONFLICT DO NOTHING`,
      [
        this.#clusterId,
        this.#options.group,
        positions.map(({ topic }) => topic.uuid),
        positions.map(({ partition }) => partition),
        positions.map(({ topic }) => topic.name),
        positions.map(({ offset }) => offset),
      ],
    );
  }

  async move(session: Session, moves: readonly Move[]): Promise<void> {
    const { rows } = await session.query(advance, [
      this.#clusterId,
      this.#options.group,
      array(moves.map(({ topic }) => topic.uuid)),
      array(moves.map(({ partition }) => partition)),
      array(moves.map(({ expected }) => expected)),
      array(moves.map(({ next }) => next)),
    ]);
    if (rows[0]![0]!.readBigInt64BE() !== BigInt(moves.length)) throw new OffsetsMoved();
  }

  /** The rows are written: that the group's offsets could not follow is mended with the next batch. */
  async moved(moves: readonly Move[]): Promise<void> {
    const { group, sinkId, logger, remote } = this.#options;
    remote?.follow(moves);
    const values = [
      group,
      moves.map(({ topic }) => topic.id),
      moves.map(({ partition }) => partition),
      moves.map(({ next }) => next),
    ];
    await this.#lane
      .transaction(async client => {
        if (!remote)
          await client.query(
            `WITH live AS MATERIALIZED (
             SELECT topic_id FROM kafka.topics WHERE topic_id = ANY ($2::int[]) ORDER BY topic_id FOR KEY SHARE)
           INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset)
           SELECT $1, topic_id, partition_id, next
           FROM unnest($2::int[], $3::int[], $4::bigint[]) AS g (topic_id, partition_id, next) JOIN live USING (topic_id)
           ORDER BY topic_id, partition_id
           ON CONFLICT (group_id, topic_id, partition_id)
           DO UPDATE SET committed_offset = excluded.committed_offset, committed_at = now()`,
            values,
          );
        await client.query(
          `DELETE FROM kafka.sink_dead_letters d USING unnest($2::int[], $3::int[], $4::bigint[]) AS g (topic_id, partition_id, next)
           WHERE sink_id = $1::int AND d.topic_id = g.topic_id AND d.partition_id = g.partition_id AND record_offset < next`,
          [sinkId, ...values.slice(1)],
        );
      })
      .catch((error: Error) => logger.warn({ err: error, group }, 'a sink’s group did not follow its progress'));
  }
}

async function ownClusterId(pool: Pool): Promise<string> {
  const { rows } = await pool.query<{ id: string }>(
    'SELECT cluster_id AS id FROM kafka.cluster ORDER BY created_at LIMIT 1',
  );
  return rows[0]?.id ?? '';
}
