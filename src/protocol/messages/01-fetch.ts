// Fetch. 4 brings batches of format v2 (KIP-98), 7 fetch sessions (KIP-227), 9 leader epochs (KIP-320), 11 racks
// (KIP-392), 12 diverging epochs (KIP-595), 13 topic ids (KIP-516), 16 the new leader (KIP-951), 17 directory ids
// (KIP-858).
import { api, array, int8, int16, int32, int64, records, string, struct, uuid } from '../schema.ts';

export const Fetch = api({
  key: 1,
  name: 'Fetch',
  versions: [0, 18],
  flexibleSince: 12,
  request: {
    clusterId: string.nullable().since(12).default(null).tag(0),
    replicaId: int32.until(14).default(-1),
    replicaState: struct({ replicaId: int32.default(-1), replicaEpoch: int64.default(-1n) })
      .since(15)
      .tag(1),
    maxWaitMs: int32,
    minBytes: int32,
    maxBytes: int32.since(3).default(2147483647),
    isolationLevel: int8.since(4),
    sessionId: int32.since(7),
    sessionEpoch: int32.since(7).default(-1),
    topics: array({
      topic: string.until(12),
      topicId: uuid.since(13),
      partitions: array({
        partition: int32,
        currentLeaderEpoch: int32.since(9).default(-1),
        fetchOffset: int64,
        lastFetchedEpoch: int32.since(12).default(-1),
        logStartOffset: int64.since(5).default(-1n),
        partitionMaxBytes: int32,
        replicaDirectoryId: uuid.since(17).tag(0),
        highWatermark: int64.since(18).default(9223372036854775807n).tag(1),
      }),
    }),
    forgottenTopicsData: array({ topic: string.until(12), topicId: uuid.since(13), partitions: array(int32) }).since(7),
    rackId: string.since(11),
  },
  response: {
    throttleTimeMs: int32.since(1),
    errorCode: int16.since(7),
    sessionId: int32.since(7),
    responses: array({
      topic: string.until(12),
      topicId: uuid.since(13),
      partitions: array({
        partitionIndex: int32,
        errorCode: int16,
        highWatermark: int64,
        lastStableOffset: int64.since(4).default(-1n),
        logStartOffset: int64.since(5).default(-1n),
        divergingEpoch: struct({ epoch: int32.default(-1), endOffset: int64.default(-1n) })
          .since(12)
          .tag(0),
        currentLeader: struct({ leaderId: int32.default(-1), leaderEpoch: int32.default(-1) })
          .since(12)
          .tag(1),
        snapshotId: struct({ endOffset: int64.default(-1n), epoch: int32.default(-1) })
          .since(12)
          .tag(2),
        abortedTransactions: array({ producerId: int64, firstOffset: int64 }).nullable().since(4),
        preferredReadReplica: int32.since(11).default(-1),
        records: records.nullable(),
      }),
    }),
    nodeEndpoints: array({ nodeId: int32, host: string, port: int32, rack: string.nullable().default(null) })
      .since(16)
      .tag(0),
  },
});
