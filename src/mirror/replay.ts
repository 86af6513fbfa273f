// Copies again what has been copied already: the position is set back, the map forgets where the records were, and tells
// where they are as they arrive. What the target has of them stays there. The producer's sequence goes on (docs/decisions/0006:
// what breaks the count is noted first), so the mirror must not run meanwhile.
import { z } from 'zod';
import type { PartitionLog } from '../storage/partition-log.ts';
import { PipelineError } from '../storage/pipelines.ts';
import type { Topic } from '../storage/topics.ts';
import type { WriteLane } from '../storage/write-lane.ts';

export const replaySchema = z
  .strictObject({
    topic: z.string(),
    /** All of them where it is not said. */
    partition: z.number().int().min(0).optional(),
    /** The first to copy again. */
    fromOffset: z.number().int().min(0).optional(),
    /** Or the first of this time or later, ms since the epoch. */
    fromTimestamp: z.number().int().min(0).optional(),
  })
  .refine(({ fromOffset, fromTimestamp }) => (fromOffset === undefined) !== (fromTimestamp === undefined), {
    message: 'fromOffset, or else fromTimestamp',
  });

export type Replay = z.infer<typeof replaySchema>;

export interface Replayed {
  readonly partition: number;
  readonly fromOffset: bigint;
}

export interface ReplayPlace {
  readonly lane: WriteLane;
  readonly mirrorId: number;
  readonly topic: Topic;
  partitionOf(partition: number): PartitionLog;
  /** The first offset of a time or later; undefined where there is none. */
  offsetAt(partition: PartitionLog, timestamp: bigint): Promise<bigint | undefined>;
}

/** Where each partition begins again; those that have not come so far are left out. Throws a PipelineError. */
export async function replay(place: ReplayPlace, asked: Replay): Promise<Replayed[]> {
  const { topic, lane, mirrorId } = place;
  if (topic.primaryMirror !== null) {
    throw new PipelineError('state', `the target is the primary of ${topic.name}`, 'roll back first');
  }
  const all = Array.from({ length: topic.partitionCount }, (_, partition) => partition);
  const wanted = asked.partition === undefined ? all : all.filter(partition => partition === asked.partition);
  if (wanted.length === 0)
    throw new PipelineError('invalid', `topic ${topic.name} has no partition ${asked.partition}`);
  const from = await Promise.all(
    wanted.map(async partition => ({ partition, offset: await firstOf(place, partition, asked) })),
  );
  const set = from.flatMap(({ partition, offset }) => (offset === undefined ? [] : [{ partition, offset }]));
  const whole = set.map(({ partition, offset }) => offset === place.partitionOf(partition).logStartOffset);
  const { rows } = await lane.transaction(client =>
    client.query<Replayed>(
      `WITH given AS (SELECT * FROM unnest($3::int[], $4::bigint[], $5::bool[]) AS g (partition_id, first, whole)),
            moved AS (UPDATE kafka.mirror_partitions p SET next_offset = first,
                        withheld = CASE WHEN whole THEN 0 ELSE withheld END
                      FROM given g
                      WHERE p.mirror_id = $1 AND p.topic_id = $2 AND p.partition_id = g.partition_id AND first < p.next_offset
                      RETURNING p.copy_id, p.partition_id, first),
            gone AS (DELETE FROM kafka.mirror_ranges r USING moved m
                     WHERE r.copy_id = m.copy_id AND r.source_offset >= first),
            cut AS (UPDATE kafka.mirror_ranges r SET records = first - r.source_offset FROM moved m
                    WHERE r.copy_id = m.copy_id AND r.source_offset < first AND r.source_offset + r.records > first)
       SELECT partition_id AS partition, first AS "fromOffset" FROM moved ORDER BY 1`,
      [mirrorId, topic.id, set.map(({ partition }) => partition), set.map(({ offset }) => offset), whole],
    ),
  );
  return rows;
}

async function firstOf(place: ReplayPlace, partition: number, asked: Replay): Promise<bigint | undefined> {
  const log = place.partitionOf(partition);
  const { fromOffset, fromTimestamp } = asked;
  const first = fromOffset === undefined ? await place.offsetAt(log, BigInt(fromTimestamp!)) : BigInt(fromOffset);
  return first !== undefined && first < log.logStartOffset ? log.logStartOffset : first;
}
