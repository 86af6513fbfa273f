// A log laid straight into the tables as the broker would: topics, segments, rows of batches. No broker runs.
import type { Pool } from '../../src/postgres/pool.ts';
import { tableOf } from '../../src/storage/segments.ts';

export interface LogRow {
  readonly partition: number;
  readonly baseOffset: bigint;
  readonly lastOffset: bigint;
  readonly globalOffset?: bigint;
  readonly records: Buffer;
}

export async function createTopic(pool: Pool, name: string, partitionCount: number): Promise<number> {
  const { rows } = await pool.query<{ id: number }>(
    `WITH topic AS (INSERT INTO kafka.topics (name, partition_count) VALUES ($1, $2) RETURNING topic_id),
          made AS (INSERT INTO kafka.partitions (topic_id, partition_id) SELECT topic_id, generate_series(0, $2 - 1) FROM topic)
     SELECT topic_id AS id FROM topic`,
    [name, partitionCount],
  );
  return rows[0]!.id;
}

export async function openSegment(pool: Pool, topicId: number): Promise<number> {
  const { rows } = await pool.query<{ id: number }>(`SELECT kafka.create_segment($1, now() + '1 day') AS id`, [
    topicId,
  ]);
  return rows[0]!.id;
}

export async function append(pool: Pool, segmentId: number, rows: readonly LogRow[]): Promise<void> {
  for (const row of rows) {
    await pool.query(
      `INSERT INTO ${tableOf(segmentId)} (partition_id, base_offset, last_offset, global_offset, max_timestamp, records)
       VALUES ($1, $2, $3, $4, $5, $6)`,
      [
        row.partition,
        row.baseOffset,
        row.lastOffset,
        row.globalOffset ?? row.baseOffset,
        row.records.readBigInt64BE(35),
        row.records,
      ],
    );
  }
}

export async function seal(pool: Pool, segmentId: number): Promise<void> {
  await pool.query(`UPDATE kafka.segments SET state = 'sealed' WHERE segment_id = $1`, [segmentId]);
  await pool.query(
    `INSERT INTO kafka.segment_partitions (segment_id, partition_id, base_offset, next_offset, max_timestamp, bytes)
     SELECT $1, partition_id, min(base_offset), max(last_offset) + 1, max(max_timestamp), sum(octet_length(records))
     FROM ${tableOf(segmentId)} GROUP BY partition_id`,
    [segmentId],
  );
}
