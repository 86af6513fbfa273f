// What Postgres knows of a capture's remote target: how far each partition was when it was last noted.
import type pg from 'pg';
import { formatLsn, type Lsn, parseLsn } from '../postgres/lsn.ts';
import type { WriteLane } from '../storage/write-lane.ts';

/** How far a partition is: the last change in it, and what follows. */
export interface RemotePosition {
  readonly partition: number;
  readonly partitionCount: number;
  /** 0/0 and -1: no change yet. */
  readonly commitLsn: Lsn;
  readonly ordinal: number;
  readonly nextOffset: bigint;
  readonly producerId: bigint;
  readonly nextSequence: number;
}

interface Row {
  readonly topic: string;
  readonly partition_id: number;
  readonly partition_count: number;
  readonly commit_lsn: string;
  readonly ordinal: string;
  readonly next_offset: string;
  readonly producer_id: string;
  readonly next_sequence: number;
}

export class RemotePositions {
  readonly #lane: WriteLane;
  readonly #captureId: number;
  readonly #clusterId: string;

  constructor(lane: WriteLane, captureId: number, clusterId: string) {
    this.#lane = lane;
    this.#captureId = captureId;
    this.#clusterId = clusterId;
  }

  /** By topic and partition. */
  async load(): Promise<Map<string, RemotePosition[]>> {
    const { rows } = await this.#lane.transaction(client =>
      client.query<Row>(
        `SELECT topic, partition_id, partition_count, commit_lsn::text, ordinal::text, next_offset::text,
                producer_id::text, next_sequence
         FROM kafka.capture_remote_positions WHERE capture_id = $1 AND cluster_id = $2 ORDER BY topic, partition_id`,
        [this.#captureId, this.#clusterId],
      ),
    );
    const byTopic = new Map<string, RemotePosition[]>();
    for (const row of rows) {
      const ofTopic = byTopic.get(row.topic) ?? [];
      byTopic.set(row.topic, ofTopic);
      ofTopic[row.partition_id] = {
        partition: row.partition_id,
        partitionCount: row.partition_count,
        commitLsn: parseLsn(row.commit_lsn),
        ordinal: Number(row.ordinal),
        nextOffset: BigInt(row.next_offset),
        producerId: BigInt(row.producer_id),
        nextSequence: row.next_sequence,
      };
    }
    return byTopic;
  }

  async save(topic: string, positions: readonly RemotePosition[]): Promise<void> {
    const rows = positions.map(position => ({ topic, position }));
    await this.#lane.transaction(client => this.note(client, rows));
  }

  /** In a transaction of the caller's. */
  async note(
    client: pg.PoolClient,
    rows: readonly { readonly topic: string; readonly position: RemotePosition }[],
  ): Promise<void> {
    if (rows.length === 0) return;
    const all = rows.map(({ position }) => position);
    await client.query(
      `INSERT INTO kafka.capture_remote_positions AS p
         (capture_id, cluster_id, topic, partition_id, partition_count, commit_lsn, ordinal, next_offset, producer_id, next_sequence)
       SELECT $1, $2, t.*
       FROM unnest($3::text[], $4::int[], $5::int[], $6::pg_lsn[], $7::int8[], $8::int8[], $9::int8[], $10::int[]) t
       ON CONFLICT (capture_id, cluster_id, topic, partition_id) DO UPDATE
       SET partition_count = excluded.partition_count, commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal,
           next_offset = excluded.next_offset, producer_id = excluded.producer_id, next_sequence = excluded.next_sequence`,
      [
        this.#captureId,
        this.#clusterId,
        rows.map(({ topic }) => topic),
        all.map(position => position.partition),
        all.map(position => position.partitionCount),
        all.map(position => formatLsn(position.commitLsn)),
        all.map(position => position.ordinal),
        all.map(position => position.nextOffset),
        all.map(position => position.producerId),
        all.map(position => position.nextSequence),
      ],
    );
  }
}
