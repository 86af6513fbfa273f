// OffsetDelete, version 0 (KIP-496): deletes committed offsets of a group, except of topics that its members subscribe
// to. A partition without a committed offset is no error.
import { ErrorCode } from '../../protocol/errors.ts';
import { OffsetDelete } from '../../protocol/messages/47-offset-delete.ts';
import { handler } from '../handler.ts';

export const offsetDelete = handler(OffsetDelete, async (request, { broker }) => {
  const answers = request.topics.map(({ name, partitions }) => {
    const topic = broker.topics.get(name);
    const exists = (partition: number) => topic !== undefined && partition >= 0 && partition < topic.partitionCount;
    return { name, topic, partitions: partitions.map(({ partitionIndex }) => partitionIndex), exists };
  });
  const { errorCode, subscribed } = await broker.groups.deleteOffsets(
    request.groupId,
    answers.flatMap(({ topic, partitions, exists }) =>
      topic ? partitions.filter(exists).map(partition => ({ topic, partition })) : [],
    ),
  );
  if (errorCode !== ErrorCode.NONE) return { errorCode, topics: [] };
  return {
    errorCode,
    topics: answers.map(({ name, topic, partitions, exists }) => ({
      name,
      partitions: partitions.map(partitionIndex => {
        const known = exists(partitionIndex) ? ErrorCode.NONE : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
        const kept = topic && subscribed.has(topic) ? ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC : ErrorCode.NONE;
        return { partitionIndex, errorCode: known || kept };
      }),
    })),
  };
});
