// Committed offsets of this log's groups, translated and committed in the target (kafka.mirror_groups), so that a group that
// stops here begins there at the next record. A group that has members in the target, or has committed there itself, is left
// alone: it has moved. What lies beyond the copy waits until the copy has come so far.
import type { Cluster } from '../client/cluster.ts';
import { isRetriable, KafkaError } from '../client/errors.ts';
import { fetchOffsets } from '../client/groups.ts';
import { commitOffsets } from '../client/offsets.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { InTurn } from '../runtime/in-turn.ts';
import { matchTopic } from '../runtime/patterns.ts';
import type { WriteLane } from '../storage/write-lane.ts';

export interface GroupSyncOptions {
  readonly lane: WriteLane;
  readonly cluster: Cluster;
  readonly mirrorId: number;
  readonly clusterId: string;
  readonly groups: readonly string[];
}

interface Wanted {
  readonly copyId: number;
  readonly groupId: string;
  readonly targetTopic: string;
  readonly partition: number;
  readonly sourceOffset: bigint;
  readonly targetOffset: bigint;
  readonly metadata: Buffer;
  /** As last written by us. */
  readonly written: bigint | null;
  readonly intended: bigint | null;
}

/** Those that the target does not have as they are here, and can. */
const select = `
  SELECT p.copy_id AS "copyId", o.group_id AS "groupId", p.target_topic AS "targetTopic", p.partition_id AS partition,
         o.committed_offset AS "sourceOffset", t.target_offset AS "targetOffset", o.metadata,
         g.target_offset AS written, g.intended_offset AS intended
  FROM kafka.mirror_partitions p
  JOIN kafka.consumer_offsets o USING (topic_id, partition_id)
  CROSS JOIN LATERAL kafka.mirror_translate(p.copy_id, o.committed_offset) AS t (target_offset)
  LEFT JOIN kafka.mirror_groups g ON g.copy_id = p.copy_id AND g.group_id = o.group_id
  WHERE p.mirror_id = $1 AND p.cluster_id = $2 AND t.target_offset IS NOT NULL
    AND (g.copy_id IS NULL OR g.source_offset <> o.committed_offset OR g.target_offset IS DISTINCT FROM t.target_offset)
    AND g.state IS DISTINCT FROM 'moved'
  ORDER BY o.group_id`;

export type GroupState = 'synced' | 'active' | 'moved';

export class GroupSync {
  readonly #options: GroupSyncOptions;
  readonly #turns = new InTurn();

  constructor(options: GroupSyncOptions) {
    this.#options = options;
  }

  /** Once through all groups, one time after another. Rejects where the target or the database cannot be asked. */
  run(): Promise<void> {
    return this.#turns.run(() => this.#run());
  }

  async #run(): Promise<void> {
    const { lane, mirrorId, clusterId, groups } = this.#options;
    if (groups.length === 0) return;
    const { rows } = await lane.run(client => client.query<Wanted>(select, [mirrorId, clusterId]));
    const byGroup = new Map<string, Wanted[]>();
    for (const row of rows) {
      if (matchTopic(groups, row.groupId) === undefined) continue;
      byGroup.set(row.groupId, [...(byGroup.get(row.groupId) ?? []), row]);
    }
    for (const [groupId, wanted] of byGroup) await this.#group(groupId, wanted);
  }

  async #group(groupId: string, wanted: readonly Wanted[]): Promise<void> {
    const { cluster } = this.#options;
    const there = new Map<string, bigint>();
    for (const { topic, partition, offset } of await fetchOffsets(cluster, groupId)) {
      there.set(`${topic} ${partition}`, offset);
    }
    const moved: Wanted[] = [];
    const ours: Wanted[] = [];
    for (const each of wanted) {
      const offset = there.get(`${each.targetTopic} ${each.partition}`);
      const known = offset === undefined || [each.written, each.intended, each.targetOffset].includes(offset);
      (known ? ours : moved).push(each);
    }
    if (moved.length > 0) await this.#note(moved, 'moved');
    if (ours.length === 0) return;
    await this.#intend(ours);
    let state: GroupState = 'synced';
    try {
      await commitOffsets(
        cluster,
        groupId,
        ours.map(({ targetTopic: topic, partition, targetOffset: offset, metadata }) => ({
          topic,
          partition,
          offset,
          metadata: metadata.toString(),
        })),
      );
    } catch (error) {
      if (isRetriable(error) || !(error instanceof KafkaError) || !hasMembers.includes(error.code)) throw error;
      state = 'active';
    }
    await this.#note(ours, state);
  }

  async #intend(wanted: readonly Wanted[]): Promise<void> {
    await this.#write(
      wanted,
      `INSERT INTO kafka.mirror_groups AS g (copy_id, group_id, source_offset, intended_offset, state)
       SELECT copy_id, group_id, -1, target_offset, 'synced' FROM given
       ON CONFLICT (copy_id, group_id) DO UPDATE SET intended_offset = excluded.intended_offset`,
    );
  }

  /** One that has members is asked about again; what it had from us stays known. */
  async #note(wanted: readonly Wanted[], state: GroupState): Promise<void> {
    const written = state === 'synced' ? 'excluded.target_offset' : 'g.target_offset';
    const source = state === 'synced' ? 'excluded.source_offset' : 'g.source_offset';
    await this.#write(
      wanted,
      `INSERT INTO kafka.mirror_groups AS g (copy_id, group_id, source_offset, target_offset, intended_offset, state)
       SELECT copy_id, group_id, source_offset, target_offset, target_offset, '${state}' FROM given
       ON CONFLICT (copy_id, group_id) DO UPDATE
       SET source_offset = ${source}, target_offset = ${written}, state = '${state}', synced_at = now()`,
    );
  }

  async #write(wanted: readonly Wanted[], statement: string): Promise<void> {
    await this.#options.lane.transaction(client =>
      client.query(
        `WITH given AS (SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[])
                          AS g (copy_id, group_id, source_offset, target_offset))
         ${statement}`,
        [
          wanted.map(({ copyId }) => copyId),
          wanted.map(({ groupId }) => groupId),
          wanted.map(({ sourceOffset }) => sourceOffset),
          wanted.map(({ targetOffset }) => targetOffset),
        ],
      ),
    );
  }
}

const hasMembers: readonly number[] = [
  ErrorCode.UNKNOWN_MEMBER_ID,
  ErrorCode.ILLEGAL_GENERATION,
  ErrorCode.REBALANCE_IN_PROGRESS,
];
