// What Postgres knows of a mirror's partitions (kafka.mirror_partitions, kafka.mirror_ranges): how far each was when it was
// last noted, and where its records are in the target. Only the mirror that runs writes here.
import type pg from 'pg';
import type { WriteLane } from '../storage/write-lane.ts';
import type { Pace } from './rate.ts';

export interface CopyPosition {
  /** In this log: everything before it is in the target, skipped or refused. */
  readonly nextOffset: bigint;
  /** In the target: what has come since is behind it. */
  readonly targetNextOffset: bigint;
  readonly producerId: bigint;
  /** The producer's, for `nextOffset`. */
  readonly nextSequence: number;
  /** By which sequences are counted from here on, % of keys; all where it is not said. */
  readonly share?: number;
}

export interface CopyCounts {
  forwarded: bigint;
  skipped: bigint;
  failed: bigint;
  withheld: bigint;
}

/** Records from `sourceOffset` on are in the target from `targetOffset` on. */
export interface OffsetRange {
  readonly sourceOffset: bigint;
  readonly targetOffset: bigint;
  records: bigint;
}

export interface NotedCopy {
  readonly copyId: number;
  readonly position: CopyPosition;
  readonly counts: CopyCounts;
  readonly lastRange: OffsetRange | undefined;
  /** The topic of this log that it is copied to; undefined where it is copied out. */
  readonly topicHere: number | undefined;
}

export interface CopyToNote {
  readonly copyId: number;
  readonly position: CopyPosition;
  readonly counts: CopyCounts;
  /** ms since the epoch. */
  readonly behindSince: number | undefined;
  /** Where the source ended; undefined where that is this log. */
  readonly sourceEnd?: bigint;
  /** Over the last minute. */
  readonly recordsPerSecond?: number;
  /** Those that have begun or grown since. */
  readonly ranges: readonly OffsetRange[];
}

export interface CopyOf {
  /** Of this log, or TopicIds' for one of another cluster. */
  readonly topicId: number;
  readonly topic: string;
  readonly targetTopic: string;
  readonly topicHere?: number;
}

export interface CopyStatus extends Partial<Pace> {
  readonly topic: string;
  readonly partition: number;
  readonly targetTopic: string;
  /** Of what is copied out of this log, who takes what is produced: with `target`, it is copied back from there. */
  readonly primary?: 'here' | 'target';
  /** The next to forward, and where the source ends. */
  readonly nextOffset: bigint;
  readonly endOffset: bigint;
  readonly targetNextOffset: bigint;
  readonly lag: bigint;
  /** Age of the oldest record that is not in the target, ms. */
  readonly lagMs: number;
  readonly forwarded: bigint;
  readonly skipped: bigint;
  readonly failed: bigint;
  /** Not of the share. */
  readonly withheld: bigint;
  readonly retried: number;
  /** While the target is the primary: records of producers here that it has acknowledged. */
  readonly passedOn?: number;
}

interface Row {
  readonly copy_id: number;
  readonly partition_id: number;
  readonly next_offset: bigint;
  readonly target_next_offset: bigint;
  readonly producer_id: bigint;
  readonly next_sequence: number;
  readonly forwarded: bigint;
  readonly skipped: bigint;
  readonly failed: bigint;
  readonly withheld: bigint;
  readonly share: number;
  readonly source_offset: bigint | null;
  readonly target_offset: bigint | null;
  readonly records: bigint | null;
  readonly topic_here: number | null;
}

export class CopyPositions {
  readonly #lane: WriteLane;
  readonly #mirrorId: number;
  readonly #clusterId: string;

  constructor(lane: WriteLane, mirrorId: number, clusterId: string) {
    this.#lane = lane;
    this.#mirrorId = mirrorId;
    this.#clusterId = clusterId;
  }

  /** Whether partitions of another cluster than this one have been copied into this log. */
  async cameFromElsewhere(): Promise<boolean> {
    const { rows } = await this.#lane.run(client =>
      client.query(
        'SELECT FROM kafka.mirror_partitions WHERE mirror_id = $1 AND cluster_id <> $2 AND topic_here IS NOT NULL LIMIT 1',
        [this.#mirrorId, this.#clusterId],
      ),
    );
    return rows.length > 0;
  }

  /** Of another mirror that copies between the same two topics the other way, and is not paused. */
  async nameOfReturn({
    here,
    there,
    way,
  }: {
    here: number;
    there: string;
    way: 'in' | 'out';
  }): Promise<string | undefined> {
    const { rows } = await this.#lane.run(client =>
      client.query<{ name: string }>(
        `SELECT m.name FROM kafka.mirror_partitions p JOIN kafka.mirrors m USING (mirror_id)
         WHERE NOT m.paused AND p.mirror_id <> $1 AND p.cluster_id = $2 AND coalesce(p.topic_here, p.topic_id) = $3
           AND $4 = CASE WHEN $5 AND p.topic_here IS NULL THEN p.target_topic
                         WHEN NOT $5 AND p.topic_here IS NOT NULL THEN p.topic END
         LIMIT 1`,
        [this.#mirrorId, this.#clusterId, here, there, way === 'in'],
      ),
    );
    return rows[0]?.name;
  }

  /** Whether there is any partition yet. */
  async known(): Promise<boolean> {
    const { rows } = await this.#lane.run(client =>
      client.query<{ known: boolean }>(
        'SELECT EXISTS (SELECT FROM kafka.mirror_partitions WHERE mirror_id = $1 AND cluster_id = $2) AS known',
        [this.#mirrorId, this.#clusterId],
      ),
    );
    return rows[0]!.known;
  }

  /** By partition; what there is not begins where `begin` says. */
  async open(
    { topicId, topic, targetTopic, topicHere }: CopyOf,
    begin: readonly (CopyPosition & { readonly partition: number })[],
  ): Promise<Map<number, NotedCopy>> {
    return this.#lane.transaction(async client => {
      await client.query(
        `INSERT INTO kafka.mirror_partitions
           (mirror_id, cluster_id, topic_id, topic, target_topic, topic_here, partition_id, next_offset, target_next_offset,
            producer_id, next_sequence, share)
         SELECT $1, $2, $3, $4, $5, $6, b.*
         FROM unnest($7::int[], $8::bigint[], $9::bigint[], $10::bigint[], $11::int[], $12::int[]) b
         ON CONFLICT DO NOTHING`,
        [
          this.#mirrorId,
          this.#clusterId,
          topicId,
          topic,
          targetTopic,
          topicHere,
          begin.map(({ partition }) => partition),
          begin.map(({ nextOffset }) => nextOffset),
          begin.map(({ targetNextOffset }) => targetNextOffset),
          begin.map(({ producerId }) => producerId),
          begin.map(({ nextSequence }) => nextSequence),
          begin.map(({ share }) => share ?? 100),
        ],
      );
      const { rows } = await client.query<Row>(
        `SELECT p.copy_id, p.partition_id, next_offset, target_next_offset, producer_id, next_sequence, forwarded, skipped,
                failed, withheld, share, topic_here, r.source_offset, r.target_offset, r.records
         FROM kafka.mirror_partitions p
         LEFT JOIN LATERAL (SELECT * FROM kafka.mirror_ranges r WHERE r.copy_id = p.copy_id
                            ORDER BY r.source_offset DESC LIMIT 1) r ON true
         WHERE mirror_id = $1 AND cluster_id = $2 AND topic_id = $3 AND target_topic = $4`,
        [this.#mirrorId, this.#clusterId, topicId, targetTopic],
      );
      return new Map(rows.map(row => [row.partition_id, notedCopy(row)]));
    });
  }

  async note(copies: readonly CopyToNote[]): Promise<void> {
    if (copies.length === 0) return;
    await this.#lane.transaction(async client => {
      await notePositions(client, copies);
      await noteRanges(client, copies);
    });
  }
}

function notedCopy(row: Row): NotedCopy {
  const { source_offset: sourceOffset, target_offset: targetOffset, records } = row;
  return {
    copyId: row.copy_id,
    position: {
      nextOffset: row.next_offset,
      targetNextOffset: row.target_next_offset,
      producerId: row.producer_id,
      nextSequence: row.next_sequence,
      share: row.share,
    },
    counts: { forwarded: row.forwarded, skipped: row.skipped, failed: row.failed, withheld: row.withheld },
    topicHere: row.topic_here ?? undefined,
    lastRange: sourceOffset === null ? undefined : { sourceOffset, targetOffset: targetOffset!, records: records! },
  };
}

async function notePositions(client: pg.PoolClient, copies: readonly CopyToNote[]): Promise<void> {
  const positions = copies.map(({ position }) => position);
  const counts = copies.map(copy => copy.counts);
  await client.query(
    `UPDATE kafka.mirror_partitions p SET
       next_offset = n.next_offset, target_next_offset = n.target_next_offset, producer_id = n.producer_id,
       next_sequence = n.next_sequence, forwarded = n.forwarded, skipped = n.skipped, failed = n.failed,
       behind_since = to_timestamp(n.behind_ms / 1000.0), source_end = n.source_end, withheld = n.withheld, share = n.share,
       records_per_second = n.records_per_second, noted_at = now()
     FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::int[], $6::bigint[], $7::bigint[], $8::bigint[], $9::float8[],
                 $10::bigint[], $11::bigint[], $12::int[], $13::float8[])
       AS n (copy_id, next_offset, target_next_offset, producer_id, next_sequence, forwarded, skipped, failed, behind_ms,
             source_end, withheld, share, records_per_second)
     WHERE p.copy_id = n.copy_id`,
    [
      copies.map(({ copyId }) => copyId),
      positions.map(({ nextOffset }) => nextOffset),
      positions.map(({ targetNextOffset }) => targetNextOffset),
      positions.map(({ producerId }) => producerId),
      positions.map(({ nextSequence }) => nextSequence),
      counts.map(({ forwarded }) => forwarded),
      counts.map(({ skipped }) => skipped),
      counts.map(({ failed }) => failed),
      copies.map(({ behindSince }) => behindSince ?? null),
      copies.map(({ sourceEnd }) => sourceEnd ?? null),
      counts.map(({ withheld }) => withheld),
      positions.map(({ share }) => share ?? 100),
      copies.map(({ recordsPerSecond }) => recordsPerSecond ?? 0),
    ],
  );
}

async function noteRanges(client: pg.PoolClient, copies: readonly CopyToNote[]): Promise<void> {
  const ranges = copies.flatMap(({ copyId, ranges: ofCopy }) => ofCopy.map(range => ({ copyId, ...range })));
  if (ranges.length === 0) return;
  await client.query(
    `INSERT INTO kafka.mirror_ranges AS r (copy_id, source_offset, target_offset, records)
     SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[])
     ON CONFLICT (copy_id, source_offset) DO UPDATE SET target_offset = excluded.target_offset, records = excluded.records`,
    [
      ranges.map(({ copyId }) => copyId),
      ranges.map(({ sourceOffset }) => sourceOffset),
      ranges.map(({ targetOffset }) => targetOffset),
      ranges.map(({ records }) => records),
    ],
  );
}
