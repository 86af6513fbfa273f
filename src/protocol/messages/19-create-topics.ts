// CreateTopics. 4 lets the broker choose partitions and replicas (-1, KIP-464), 5 answers with the configuration
// (KIP-525), 7 with the topic id (KIP-516).
import { api, array, boolean, int8, int16, int32, string, uuid } from '../schema.ts';

export const CreateTopics = api({
  key: 19,
  name: 'CreateTopics',
  versions: [0, 7],
  flexibleSince: 5,
  request: {
    topics: array({
      name: string,
      numPartitions: int32,
      replicationFactor: int16,
      assignments: array({ partitionIndex: int32, brokerIds: array(int32) }),
      configs: array({ name: string, value: string.nullable() }),
    }),
    timeoutMs: int32.default(60000),
    validateOnly: boolean.since(1),
  },
  response: {
    throttleTimeMs: int32.since(2),
    topics: array({
      name: string,
      topicId: uuid.since(7),
      errorCode: int16,
      errorMessage: string.nullable().since(1).default(null),
      topicConfigErrorCode: int16.since(5).tag(0),
      numPartitions: int32.since(5).default(-1),
      replicationFactor: int16.since(5).default(-1),
      configs: array({
        name: string,
        value: string.nullable(),
        readOnly: boolean,
        configSource: int8.default(-1),
        isSensitive: boolean,
      })
        .nullable()
        .since(5),
    }),
  },
});
