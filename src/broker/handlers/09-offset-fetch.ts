// OffsetFetch, versions 0 to 10 (2: all topics when null, 7: require stable, KIP-447; 8: several groups at once,
// KIP-709; 10: topics by id). Answers from Postgres, in one query, so offsets that SQL has changed are seen.
// A partition without a committed offset has offset -1. requireStable waits for the commits that are being written.
// Differs from Kafka: all versions read the same offsets (0 is ZooKeeper's there).
import { ErrorCode } from '../../protocol/errors.ts';
import { OffsetFetch } from '../../protocol/messages/09-offset-fetch.ts';
import type { ResponseOf } from '../../protocol/schema.ts';
import type { CommittedOffset } from '../../storage/offsets.ts';
import type { Topic } from '../../storage/topics.ts';
import type { BrokerContext } from '../context.ts';
import { handler } from '../handler.ts';

type GroupAnswer = NonNullable<ResponseOf<typeof OffsetFetch>['groups']>[number];
type TopicAnswer = GroupAnswer['topics'][number];
type PartitionAnswer = TopicAnswer['partitions'][number];

interface AskedTopic {
  readonly name: string;
  readonly topicId: string;
  readonly topic: Topic | undefined;
  readonly partitionIndexes: readonly number[];
}

export const offsetFetch = handler(OffsetFetch, async (request, { broker, apiVersion }) => {
  const byId = apiVersion >= 10;
  const single = {
    groupId: request.groupId,
    topics: request.topics?.map(topic => ({ ...topic, topicId: '' })) ?? null,
  };
  const asked = (apiVersion >= 8 ? request.groups : [single]).map(({ groupId, topics }) => ({
    groupId,
    topics:
      topics?.map(({ name, topicId, partitionIndexes }): AskedTopic => {
        const topic = byId ? broker.topics.byUuid(topicId) : broker.topics.get(name);
        return { name, topicId, topic, partitionIndexes };
      }) ?? null,
  }));
  const fetched = await broker.groups.fetchOffsets(
    asked.map(({ groupId, topics }) => ({
      groupId,
      topicIds: topics?.flatMap(({ topic }) => topic?.id ?? []) ?? null,
    })),
    request.requireStable,
  );
  const groups = asked.map(({ groupId, topics }): GroupAnswer => {
    const { errorCode, offsets } = fetched.get(groupId)!;
    if (errorCode !== ErrorCode.NONE) {
      // Versions 0 and 1 have no place for the error of a group.
      return { groupId, errorCode, topics: apiVersion < 2 ? refuseEach(topics ?? [], errorCode) : [] };
    }
    const byTopic = new Map<number, CommittedOffset[]>();
    for (const offset of offsets) {
      const ofTopic = byTopic.get(offset.topicId);
      if (ofTopic) ofTopic.push(offset);
      else byTopic.set(offset.topicId, [offset]);
    }
    return { groupId, topics: topics ? theAsked(topics, byTopic, byId) : all(byTopic, broker) };
  });
  if (apiVersion >= 8) return { groups };
  const { errorCode, topics } = groups[0]!;
  return { errorCode, topics: topics.map(({ name = '', partitions }) => ({ name, partitions })) };
});

function theAsked(
  topics: readonly AskedTopic[],
  byTopic: ReadonlyMap<number, readonly CommittedOffset[]>,
  byId: boolean,
): TopicAnswer[] {
  return topics.map(({ name, topicId, topic, partitionIndexes }) => {
    const unknown = byId && topic === undefined ? ErrorCode.UNKNOWN_TOPIC_ID : ErrorCode.NONE;
    const offsets = new Map((topic && byTopic.get(topic.id))?.map(offset => [offset.partition, offset]));
    return {
      name,
      topicId,
      partitions: partitionIndexes.map(partition => {
        const offset = offsets.get(partition);
        return offset ? partitionAnswer(offset) : noOffset(partition, unknown);
      }),
    };
  });
}

function all(byTopic: ReadonlyMap<number, readonly CommittedOffset[]>, broker: BrokerContext): TopicAnswer[] {
  return [...byTopic].flatMap(([id, offsets]) => {
    const topic = broker.topics.byId(id);
    return topic ? [{ name: topic.name, topicId: topic.uuid, partitions: offsets.map(partitionAnswer) }] : [];
  });
}

function refuseEach(topics: readonly AskedTopic[], errorCode: number): TopicAnswer[] {
  return topics.map(({ name, topicId, partitionIndexes }) => ({
    name,
    topicId,
    partitions: partitionIndexes.map(partition => noOffset(partition, errorCode)),
  }));
}

function partitionAnswer({ partition, offset, leaderEpoch, metadata }: CommittedOffset): PartitionAnswer {
  return {
    partitionIndex: partition,
    committedOffset: offset,
    committedLeaderEpoch: leaderEpoch,
    metadata,
    errorCode: ErrorCode.NONE,
  };
}

function noOffset(partitionIndex: number, errorCode: number): PartitionAnswer {
  return { partitionIndex, committedOffset: -1n, committedLeaderEpoch: -1, metadata: '', errorCode };
}
