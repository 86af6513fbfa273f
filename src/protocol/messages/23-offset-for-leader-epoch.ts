// OffsetForLeaderEpoch: where a leader epoch ended (KIP-320).
import { api, array, int16, int32, int64, string } from '../schema.ts';

export const OffsetForLeaderEpoch = api({
  key: 23,
  name: 'OffsetForLeaderEpoch',
  versions: [0, 4],
  flexibleSince: 4,
  request: {
    replicaId: int32.since(3).default(-2),
    topics: array({
      topic: string,
      partitions: array({ partition: int32, currentLeaderEpoch: int32.since(2).default(-1), leaderEpoch: int32 }),
    }),
  },
  response: {
    throttleTimeMs: int32.since(2),
    topics: array({
      topic: string,
      partitions: array({
        errorCode: int16,
        partition: int32,
        leaderEpoch: int32.since(1).default(-1),
        endOffset: int64.default(-1n),
      }),
    }),
  },
});
