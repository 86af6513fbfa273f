// Consumer groups of a remote cluster, for those who look after somebody else's: which there are and where they stand.
// Each is asked again until it is answered (Cluster.retrying), also while the group's coordinator moves, and rejects with
// KafkaError for what is refused.
import { ErrorCode } from '../protocol/errors.ts';
import { OffsetFetch } from '../protocol/messages/09-offset-fetch.ts';
import { DescribeGroups } from '../protocol/messages/15-describe-groups.ts';
import { ListGroups } from '../protocol/messages/16-list-groups.ts';
import type { Cluster } from './cluster.ts';
import { KafkaError, UnreachableError } from './errors.ts';
import { type CommittedOffset, coordinatorOf } from './offsets.ts';

export interface ListedGroup {
  readonly groupId: string;
  /** `consumer` for groups of consumers, empty for those that only commit offsets. */
  readonly protocolType: string;
  /** Empty where the broker does not tell. */
  readonly state: string;
}

export interface DescribedGroup {
  readonly groupId: string;
  /** Empty, Dead, Stable, …; Dead for a group that there is not. */
  readonly state: string;
  readonly members: readonly { readonly memberId: string; readonly clientId: string; readonly clientHost: string }[];
}

/** Of all brokers, by group id. */
export async function listGroups(cluster: Cluster): Promise<ListedGroup[]> {
  return cluster.retrying(async () => {
    if (cluster.brokerIds.length === 0) await cluster.refresh();
    const found = new Map<string, ListedGroup>();
    for (const broker of cluster.brokerIds) {
      const request = { statesFilter: [], typesFilter: [] };
      const { errorCode, groups } = await cluster.request(broker, ListGroups, request, { most: 4 });
      if (errorCode !== ErrorCode.NONE) throw new KafkaError(errorCode, `the groups of broker ${broker}`);
      for (const { groupId, protocolType, groupState } of groups) {
        found.set(groupId, { groupId, protocolType, state: groupState });
      }
    }
    return [...found.values()].sort((a, b) => (a.groupId < b.groupId ? -1 : 1));
  });
}

export async function describeGroup(cluster: Cluster, groupId: string): Promise<DescribedGroup> {
  return cluster.retrying(async () => {
    const coordinator = await coordinatorOf(cluster, groupId);
    const request = { groups: [groupId], includeAuthorizedOperations: false };
    const { groups } = await cluster.request(coordinator, DescribeGroups, request, { most: 5 });
    const group = groups.find(found => found.groupId === groupId);
    if (group === undefined) throw new UnreachableError(`group ${groupId} was passed over`);
    if (group.errorCode !== ErrorCode.NONE) throw new KafkaError(group.errorCode, `group ${groupId}`);
    const members = group.members.map(({ memberId, clientId, clientHost }) => ({ memberId, clientId, clientHost }));
    return { groupId, state: group.groupState, members };
  });
}

/** All committed offsets of a group; none of one that there is not. */
export async function fetchOffsets(cluster: Cluster, groupId: string): Promise<CommittedOffset[]> {
  return cluster.retrying(async () => {
    const coordinator = await coordinatorOf(cluster, groupId);
    const request = { groupId, topics: null, groups: [], requireStable: false };
    const { errorCode, topics } = await cluster.request(coordinator, OffsetFetch, request, { least: 2, most: 7 });
    if (errorCode !== ErrorCode.NONE) throw new KafkaError(errorCode, `the offsets of group ${groupId}`);
    return topics.flatMap(({ name, partitions }) =>
      partitions.flatMap(({ partitionIndex, committedOffset, committedLeaderEpoch, metadata, errorCode: refused }) => {
        if (refused !== ErrorCode.NONE) throw new KafkaError(refused, `${name}-${partitionIndex} of group ${groupId}`);
        if (committedOffset < 0n) return [];
        const leaderEpoch = committedLeaderEpoch;
        return [{ topic: name, partition: partitionIndex, offset: committedOffset, leaderEpoch, metadata }];
      }),
    );
  });
}
