// DescribeCluster (KIP-700). 1 tells brokers from controllers (KIP-919), 2 adds fenced brokers (KIP-1073).
import { api, array, boolean, int8, int16, int32, string } from '../schema.ts';

export const DescribeCluster = api({
  key: 60,
  name: 'DescribeCluster',
  versions: [0, 2],
  flexibleSince: 0,
  request: {
    includeClusterAuthorizedOperations: boolean,
    endpointType: int8.since(1).default(1),
    includeFencedBrokers: boolean.since(2),
  },
  response: {
    throttleTimeMs: int32.default(0),
    errorCode: int16,
    errorMessage: string.nullable().default(null),
    endpointType: int8.since(1).default(1),
    clusterId: string,
    controllerId: int32.default(-1),
    brokers: array({
      brokerId: int32,
      host: string,
      port: int32,
      rack: string.nullable().default(null),
      isFenced: boolean.since(2),
    }),
    clusterAuthorizedOperations: int32.default(-2147483648),
  },
});
