// Produce. Acks 0, 1 or -1 (all). 3 brings batches of format v2 (KIP-98), 7 zstd (KIP-110), 8 errors of single
// records (KIP-467), 10 the new leader (KIP-951), 13 topic ids (KIP-516).
import { api, array, int16, int32, int64, records, string, struct, uuid } from '../schema.ts';

export const Produce = api({
  key: 0,
  name: 'Produce',
  versions: [0, 13],
  flexibleSince: 9,
  request: {
    transactionalId: string.nullable().since(3).default(null),
    acks: int16,
    timeoutMs: int32,
    topicData: array({
      name: string.until(12),
      topicId: uuid.since(13),
      partitionData: array({ index: int32, records: records.nullable() }),
    }),
  },
  response: {
    responses: array({
      name: string.until(12),
      topicId: uuid.since(13),
      partitionResponses: array({
        index: int32,
        errorCode: int16,
        baseOffset: int64,
        logAppendTimeMs: int64.since(2).default(-1n),
        logStartOffset: int64.since(5).default(-1n),
        recordErrors: array({ batchIndex: int32, batchIndexErrorMessage: string.nullable().default(null) }).since(8),
        errorMessage: string.nullable().since(8).default(null),
        currentLeader: struct({ leaderId: int32.default(-1), leaderEpoch: int32.default(-1) })
          .since(10)
          .tag(0),
      }),
    }),
    throttleTimeMs: int32.since(1),
    nodeEndpoints: array({ nodeId: int32, host: string, port: int32, rack: string.nullable().default(null) })
      .since(10)
      .tag(0),
  },
});
