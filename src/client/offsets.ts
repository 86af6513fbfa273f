// A group's committed offsets in a remote cluster, written by somebody who is no member of it (a simple group): so that
// Kafka's tools show how far a reader has come that keeps its position elsewhere.
import { ErrorCode } from '../protocol/errors.ts';
import { OffsetCommit } from '../protocol/messages/08-offset-commit.ts';
import { FindCoordinator } from '../protocol/messages/10-find-coordinator.ts';
import type { Cluster } from './cluster.ts';
import { KafkaError, UnreachableError } from './errors.ts';

export interface CommittedOffset {
  readonly topic: string;
  readonly partition: number;
  /** The next to read. */
  readonly offset: bigint;
  /** -1 or absent: not known. */
  readonly leaderEpoch?: number;
  readonly metadata?: string | null;
}

interface Committed {
  readonly partitionIndex: number;
  readonly committedOffset: bigint;
  readonly committedLeaderEpoch: number;
  readonly committedMetadata: string | null;
}

const groupKey = 0;

/** The broker that keeps the group, asked for anew; it is among those that the cluster knows. Rejects with a ClientError. */
export async function coordinatorOf(cluster: Cluster, group: string): Promise<number> {
  const body = { key: group, keyType: groupKey, coordinatorKeys: [group] };
  const answer = await cluster.request('any', FindCoordinator, body, { least: 1 });
  // Up to version 3 it is the answer itself (KIP-699).
  const found = answer.coordinators?.find(({ key }) => key === group) ?? answer;
  if (found.errorCode !== ErrorCode.NONE) throw new KafkaError(found.errorCode, `group ${group}`, found.errorMessage);
  if (!cluster.brokerIds.includes(found.nodeId)) await cluster.refresh();
  return found.nodeId;
}

/** Asked again until it is answered. Rejects with KafkaError where the group has members, or may not be written to. */
export async function commitOffsets(
  cluster: Cluster,
  group: string,
  offsets: readonly CommittedOffset[],
): Promise<void> {
  const topics = new Map<string, Committed[]>();
  for (const { topic, partition, offset, leaderEpoch = -1, metadata = null } of offsets) {
    const partitions = topics.get(topic) ?? [];
    topics.set(topic, partitions);
    partitions.push({
      partitionIndex: partition,
      committedOffset: offset,
      committedLeaderEpoch: leaderEpoch,
      committedMetadata: metadata,
    });
  }
  const asked = Array.from(topics, ([name, partitions]) => ({ name, partitions }));
  await cluster.retrying(async () => {
    const coordinator = await coordinatorOf(cluster, group);
    const answer = await cluster.request(
      coordinator,
      OffsetCommit,
      { groupId: group, memberId: '', topics: asked },
      { least: 2, most: 9 },
    );
    let answered = 0;
    for (const { name, partitions } of answer.topics) {
      for (const { partitionIndex, errorCode } of partitions) {
        if (errorCode !== ErrorCode.NONE) {
          throw new KafkaError(errorCode, `offset of partition ${partitionIndex} of ${name} for group ${group}`);
        }
        answered++;
      }
    }
    if (answered < offsets.length) throw new UnreachableError(`offsets of group ${group} were passed over`);
  });
}
