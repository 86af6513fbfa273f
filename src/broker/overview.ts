// What a person wants to see at a glance: topics with their sizes, groups with their lag. For the status page.
import type { Pool } from '../postgres/pool.ts';
import type { Log } from '../storage/log.ts';
import { type Extent, partitionSizes, type StoredSizes } from '../storage/topic-sizes.ts';
import type { Topic, Topics } from '../storage/topics.ts';
import type { GroupCoordinator } from './groups/coordinator.ts';

export interface OverviewSources {
  readonly topics: Topics;
  readonly log: Log;
  readonly groups: GroupCoordinator;
  readonly pool: Pool;
}

export interface TopicOverview {
  readonly name: string;
  readonly partitions: number;
  readonly records: bigint;
  readonly bytes: bigint;
}

export interface GroupOverview {
  readonly id: string;
  readonly state: string;
  readonly members: number;
  readonly lag: bigint;
}

/** In order of their names; at most `limit` groups are looked into. */
export async function readOverview(
  sources: OverviewSources,
  limit: number,
): Promise<{ topics: TopicOverview[]; groups: GroupOverview[] }> {
  const sizes = await sources.topics.sizes.read();
  const topics = [...sources.topics.all()].map(topic => topicOverview(topic, sources.log, sizes));
  const listed = (await sources.groups.list()).groups.map(({ groupId }) => groupId).sort();
  const groups = await groupOverviews(listed.slice(0, limit), sources);
  return { topics: topics.sort((a, b) => (a.name < b.name ? -1 : 1)), groups };
}

function topicOverview(topic: Topic, log: Log, sizes: StoredSizes): TopicOverview {
  const extents = Array.from({ length: topic.partitionCount }, (_, partition) => extentOf(log, topic, partition));
  return {
    name: topic.name,
    partitions: topic.partitionCount,
    records: extents.reduce((sum, { logStartOffset, highWatermark }) => sum + highWatermark - logStartOffset, 0n),
    bytes: partitionSizes(sizes, topic.id, extents).reduce((sum, bytes) => sum + bytes, 0n),
  };
}

async function groupOverviews(
  ids: readonly string[],
  { topics, log, groups, pool }: OverviewSources,
): Promise<GroupOverview[]> {
  const { rows } = await pool.query<{ group_id: string; topic_id: number; partition_id: number; next: bigint }>(
    `SELECT group_id, topic_id, partition_id, committed_offset AS next
     FROM kafka.consumer_offsets WHERE group_id = ANY($1)`,
    [ids],
  );
  const lags = new Map<string, bigint>();
  for (const { group_id, topic_id, partition_id, next } of rows) {
    const topic = topics.byId(topic_id);
    if (topic === undefined) continue;
    const { logStartOffset, highWatermark } = extentOf(log, topic, partition_id);
    let from = logStartOffset;
    if (next > from) from = next;
    if (highWatermark > from) lags.set(group_id, (lags.get(group_id) ?? 0n) + highWatermark - from);
  }
  const described = await groups.describe(ids);
  return described.map(({ groupId, state, members }) => ({
    id: groupId,
    state,
    members: members.length,
    lag: lags.get(groupId) ?? 0n,
  }));
}

function extentOf(log: Log, topic: Topic, partition: number): Extent {
  return log.partition(topic, partition) ?? { logStartOffset: 0n, highWatermark: 0n };
}
