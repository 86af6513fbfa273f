// Committed offsets of a remote cluster's groups, translated and committed here (kafka.mirror_groups), so that a group that
// stops there begins here at the next record. A group that has members here, or has committed here itself, is left alone: it
// has moved. What lies beyond the copy waits until the copy has come so far. Offsets here and what is known of them change
// in one transaction, so that nobody's commit is taken for ours, nor ours for somebody's.
import type pg from 'pg';
import type { Cluster } from '../client/cluster.ts';
import { fetchOffsets, listGroups } from '../client/groups.ts';
import type { CommittedOffset } from '../client/offsets.ts';
import { InTurn } from '../runtime/in-turn.ts';
import { matchTopic } from '../runtime/patterns.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import type { GroupState } from './group-sync.ts';
import type { MirrorContext } from './session.ts';

export interface InboundGroupsOptions {
  readonly lane: WriteLane;
  readonly cluster: Cluster;
  readonly mirrorId: number;
  readonly clusterId: string;
  readonly groups: readonly string[];
  readonly members: MirrorContext['members'];
}

interface Wanted {
  readonly copyId: number;
  readonly topicId: number;
  readonly partition: number;
  readonly sourceOffset: bigint;
  readonly targetOffset: bigint;
  readonly metadata: string;
  /** As last written by us. */
  readonly written: bigint | null;
}

/** Those that are not here as they are there, and can be. */
const select = `
  SELECT p.copy_id AS "copyId", p.topic_here AS "topicId", p.partition_id AS partition, o.committed AS "sourceOffset",
         t.target_offset AS "targetOffset", o.metadata, g.target_offset AS written
  FROM unnest($3::text[], $4::int[], $5::bigint[], $6::text[]) AS o (topic, partition_id, committed, metadata)
  JOIN kafka.mirror_copies p USING (topic, partition_id)
  CROSS JOIN LATERAL kafka.mirror_translate(p.copy_id, o.committed) AS t (target_offset)
  LEFT JOIN kafka.mirror_groups g ON g.copy_id = p.copy_id AND g.group_id = $7
  WHERE p.mirror_id = $1 AND p.cluster_id = $2 AND p.topic_here IS NOT NULL AND t.target_offset IS NOT NULL
    AND (g.copy_id IS NULL OR g.source_offset <> o.committed OR g.target_offset IS DISTINCT FROM t.target_offset)
    AND g.state IS DISTINCT FROM 'moved'
  ORDER BY p.topic_here, p.partition_id`;

export class InboundGroups {
  readonly #options: InboundGroupsOptions;
  readonly #turns = new InTurn();

  constructor(options: InboundGroupsOptions) {
    this.#options = options;
  }

  /** Once through all groups, one time after another. Rejects where the cluster or the database cannot be asked. */
  run(): Promise<void> {
    return this.#turns.run(() => this.#run());
  }

  async #run(): Promise<void> {
    const { cluster, groups, lane } = this.#options;
    if (groups.length === 0) return;
    for (const { groupId, protocolType } of await listGroups(cluster)) {
      if (protocolType !== 'consumer' && protocolType !== '') continue;
      if (matchTopic(groups, groupId) === undefined) continue;
      const offsets = await fetchOffsets(cluster, groupId);
      if (offsets.length > 0) await lane.transaction(client => this.#group(client, groupId, offsets));
    }
  }

  async #group(client: pg.PoolClient, groupId: string, offsets: readonly CommittedOffset[]): Promise<void> {
    const { mirrorId, clusterId, members } = this.#options;
    const { rows: wanted } = await client.query<Wanted>(select, [
      mirrorId,
      clusterId,
      offsets.map(({ topic }) => topic),
      offsets.map(({ partition }) => partition),
      offsets.map(({ offset }) => offset),
      offsets.map(({ metadata }) => metadata ?? ''),
      groupId,
    ]);
    if (wanted.length === 0) return;
    const here = await offsetsHere(client, groupId, [...new Set(wanted.map(({ topicId }) => topicId))]);
    const isOurs = ({ topicId, partition, written, targetOffset }: Wanted): boolean => {
      const offset = here.get(`${topicId} ${partition}`);
      return offset === undefined || offset === written || offset === targetOffset;
    };
    const ours = wanted.filter(isOurs);
    const isActive = ((await members([groupId])).get(groupId) ?? 0) > 0;
    if (!isActive) await commit(client, groupId, ours);
    await note(client, groupId, ours, isActive ? 'active' : 'synced');
    await note(
      client,
      groupId,
      wanted.filter(each => !isOurs(each)),
      'moved',
    );
  }
}

/** Locked, topics first, as commits lock them (storage/offsets.ts). */
async function offsetsHere(
  client: pg.PoolClient,
  groupId: string,
  topicIds: readonly number[],
): Promise<Map<string, bigint>> {
  await client.query('SELECT FROM kafka.topics WHERE topic_id = ANY ($1::int[]) ORDER BY topic_id FOR KEY SHARE', [
    topicIds,
  ]);
  const { rows } = await client.query<{ place: string; offset: bigint }>(
    `SELECT topic_id || ' ' || partition_id AS place, committed_offset AS offset FROM kafka.consumer_offsets
     WHERE group_id = $1 AND topic_id = ANY ($2::int[]) ORDER BY topic_id, partition_id FOR UPDATE`,
    [groupId, topicIds],
  );
  return new Map(rows.map(({ place, offset }) => [place, offset]));
}

async function commit(client: pg.PoolClient, groupId: string, wanted: readonly Wanted[]): Promise<void> {
  await client.query(
    `INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset, metadata)
     SELECT $1, topic_id, partition_id, committed, convert_to(metadata, 'UTF8')
     FROM unnest($2::int[], $3::int[], $4::bigint[], $5::text[]) AS g (topic_id, partition_id, committed, metadata)
     JOIN kafka.topics USING (topic_id) ORDER BY topic_id, partition_id
     ON CONFLICT (group_id, topic_id, partition_id) DO UPDATE
     SET committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch, metadata = excluded.metadata,
         committed_at = now()`,
    [
      groupId,
      wanted.map(({ topicId }) => topicId),
      wanted.map(({ partition }) => partition),
      wanted.map(({ targetOffset }) => targetOffset),
      wanted.map(({ metadata }) => metadata),
    ],
  );
}

/** One that has members is looked at again; what it had from us stays known. */
async function note(
  client: pg.PoolClient,
  groupId: string,
  wanted: readonly Wanted[],
  state: GroupState,
): Promise<void> {
  const source = state === 'synced' ? 'excluded.source_offset' : 'g.source_offset';
  const target = state === 'synced' ? 'excluded.target_offset' : 'g.target_offset';
  await client.query(
    `INSERT INTO kafka.mirror_groups AS g (copy_id, group_id, source_offset, target_offset, intended_offset, state)
     SELECT copy_id, $1, source_offset, target_offset, intended, '${state}'
     FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n (copy_id, source_offset, target_offset, intended)
     ON CONFLICT (copy_id, group_id) DO UPDATE
     SET source_offset = ${source}, target_offset = ${target}, intended_offset = excluded.intended_offset,
         state = '${state}', synced_at = now()`,
    [
      groupId,
      wanted.map(({ copyId }) => copyId),
      wanted.map(({ sourceOffset }) => (state === 'synced' ? sourceOffset : -1n)),
      wanted.map(({ targetOffset }) => (state === 'synced' ? targetOffset : null)),
      wanted.map(({ targetOffset }) => targetOffset),
    ],
  );
}
