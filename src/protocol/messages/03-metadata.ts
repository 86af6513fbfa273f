// Metadata. Null topics mean all of them, an empty list none (in version 0 empty means all). 10 brings topic ids
// (KIP-516), 13 an error for the whole answer (KIP-1102).
import { api, array, boolean, int16, int32, string, uuid } from '../schema.ts';

export const Metadata = api({
  key: 3,
  name: 'Metadata',
  versions: [0, 13],
  flexibleSince: 9,
  request: {
    topics: array({ topicId: uuid.since(10), name: string.nullableSince(10) }).nullableSince(1),
    allowAutoTopicCreation: boolean.since(4).default(true),
    includeClusterAuthorizedOperations: boolean.since(8).until(10),
    includeTopicAuthorizedOperations: boolean.since(8),
  },
  response: {
    throttleTimeMs: int32.since(3),
    brokers: array({ nodeId: int32, host: string, port: int32, rack: string.nullable().since(1).default(null) }),
    clusterId: string.nullable().since(2).default(null),
    controllerId: int32.since(1).default(-1),
    topics: array({
      errorCode: int16,
      name: string.nullableSince(12),
      topicId: uuid.since(10),
      isInternal: boolean.since(1),
      partitions: array({
        errorCode: int16,
        partitionIndex: int32,
        leaderId: int32,
        leaderEpoch: int32.since(7).default(-1),
        replicaNodes: array(int32),
        isrNodes: array(int32),
        offlineReplicas: array(int32).since(5),
      }),
      topicAuthorizedOperations: int32.since(8).default(-2147483648),
    }),
    clusterAuthorizedOperations: int32.since(8).until(10).default(-2147483648),
    errorCode: int16.since(13),
  },
});
