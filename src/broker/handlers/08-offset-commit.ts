// OffsetCommit, versions 0 to 10 (9: KIP-848's errors, 10: topics by id, KIP-1251). The answer follows COMMIT.
// Members commit with their generation; with generation -1 whoever likes, to a group without members.
// Differs from Kafka: all versions store offsets alike (0 is ZooKeeper's there); retentionTimeMs of versions 2 to 4 is
// ignored, offsets.retention.minutes holds for all.
import { ErrorCode } from '../../protocol/errors.ts';
import { OffsetCommit } from '../../protocol/messages/08-offset-commit.ts';
import type { CommittedOffset } from '../../storage/offsets.ts';
import { handler } from '../handler.ts';

export const offsetCommit = handler(OffsetCommit, async (request, { broker, apiVersion, readyForNext }) => {
  const offsets: CommittedOffset[] = [];
  const byId = apiVersion >= 10;
  const answers = request.topics.map(({ name, topicId, partitions }) => {
    const topic = byId ? broker.topics.byUuid(topicId) : broker.topics.get(name);
    const refusals = partitions.map(({ partitionIndex, committedOffset, committedLeaderEpoch, committedMetadata }) => {
      if (!topic) return byId ? ErrorCode.UNKNOWN_TOPIC_ID : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
      if (partitionIndex < 0 || partitionIndex >= topic.partitionCount) return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
      const metadata = committedMetadata ?? '';
      if (metadata.length > broker.settings.offsetMetadataMaxBytes) return ErrorCode.OFFSET_METADATA_TOO_LARGE;
      offsets.push({
        topicId: topic.id,
        partition: partitionIndex,
        offset: committedOffset,
        leaderEpoch: committedLeaderEpoch,
        metadata,
      });
      return ErrorCode.NONE;
    });
    return { name, topicId, topic, partitions, refusals };
  });

  const committed = broker.groups.commitOffsets(
    {
      groupId: request.groupId,
      memberId: request.memberId,
      groupInstanceId: request.groupInstanceId,
      generationId: request.generationIdOrMemberEpoch,
      knowsGroupIdNotFound: apiVersion >= 9,
    },
    offsets,
  );
  readyForNext(); // commits are written in the order asked for, and several in one statement
  const { errorCode, goneTopics } = await committed;
  return {
    topics: answers.map(({ name, topicId, topic, partitions, refusals }) => {
      const gone = topic !== undefined && goneTopics.has(topic.id);
      const goneCode = byId ? ErrorCode.UNKNOWN_TOPIC_ID : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
      return {
        name,
        topicId,
        partitions: partitions.map(({ partitionIndex }, i) => ({
          partitionIndex,
          errorCode: refusals[i] || errorCode || (gone ? goneCode : ErrorCode.NONE),
        })),
      };
    }),
  };
});
