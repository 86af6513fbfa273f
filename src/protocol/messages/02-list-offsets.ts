// ListOffsets: from a timestamp to an offset. Below 0 the timestamp is a question: -1 latest, -2 earliest, -3 max
// timestamp (7, KIP-734), -4 earliest local (8), -5 latest tiered (9), -6 earliest pending upload (11).
import { api, array, int8, int16, int32, int64, string } from '../schema.ts';

export const ListOffsets = api({
  key: 2,
  name: 'ListOffsets',
  versions: [0, 11],
  flexibleSince: 6,
  request: {
    replicaId: int32,
    isolationLevel: int8.since(2),
    topics: array({
      name: string,
      partitions: array({
        partitionIndex: int32,
        currentLeaderEpoch: int32.since(4).default(-1),
        timestamp: int64,
        maxNumOffsets: int32.until(0).default(1),
      }),
    }),
    timeoutMs: int32.since(10),
  },
  response: {
    throttleTimeMs: int32.since(2),
    topics: array({
      name: string,
      partitions: array({
        partitionIndex: int32,
        errorCode: int16,
        oldStyleOffsets: array(int64).until(0),
        timestamp: int64.since(1).default(-1n),
        offset: int64.since(1).default(-1n),
        leaderEpoch: int32.since(4).default(-1),
      }),
    }),
  },
});
