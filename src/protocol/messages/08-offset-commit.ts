// OffsetCommit. 7 brings static members (KIP-345), 9 the member epochs of KIP-848, 10 topic ids.
import { api, array, int16, int32, int64, string, uuid } from '../schema.ts';

export const OffsetCommit = api({
  key: 8,
  name: 'OffsetCommit',
  versions: [0, 10],
  flexibleSince: 8,
  request: {
    groupId: string,
    generationIdOrMemberEpoch: int32.since(1).default(-1),
    memberId: string.since(1),
    groupInstanceId: string.nullable().since(7).default(null),
    retentionTimeMs: int64.since(2).until(4).default(-1n),
    topics: array({
      name: string.until(9),
      topicId: uuid.since(10),
      partitions: array({
        partitionIndex: int32,
        committedOffset: int64,
        committedLeaderEpoch: int32.since(6).default(-1),
        commitTimestamp: int64.since(1).until(1).default(-1n),
        committedMetadata: string.nullable(),
      }),
    }),
  },
  response: {
    throttleTimeMs: int32.since(3),
    topics: array({
      name: string.until(9),
      topicId: uuid.since(10),
      partitions: array({ partitionIndex: int32, errorCode: int16 }),
    }),
  },
});
