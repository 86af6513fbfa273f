// OffsetDelete (KIP-496): forgets committed offsets of a group.
import { api, array, int16, int32, string } from '../schema.ts';

export const OffsetDelete = api({
  key: 47,
  name: 'OffsetDelete',
  versions: [0, 0],
  request: { groupId: string, topics: array({ name: string, partitions: array({ partitionIndex: int32 }) }) },
  response: {
    errorCode: int16,
    throttleTimeMs: int32.default(0),
    topics: array({ name: string, partitions: array({ partitionIndex: int32, errorCode: int16 }) }),
  },
});
