// DescribeCluster, versions 0 to 2 (KIP-700, KIP-919): the one broker, which is also what Kafka calls the controller.
// There are no controller endpoints (endpointType 2) and no fenced brokers.
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeCluster } from '../../protocol/messages/60-describe-cluster.ts';
import { clusterOperations, notAsked } from '../authorized-operations.ts';
import { handler } from '../handler.ts';

const brokers = 1;
const controllers = 2;

export const describeCluster = handler(DescribeCluster, (request, { broker, apiVersion }) => {
  const { endpointType } = request;
  if (endpointType !== brokers) {
    const errorCode =
      apiVersion === 0
        ? ErrorCode.INVALID_REQUEST
        : endpointType === controllers
          ? ErrorCode.MISMATCHED_ENDPOINT_TYPE
          : ErrorCode.UNSUPPORTED_ENDPOINT_TYPE;
    return { errorCode, errorMessage: 'this endpoint is a broker’s', clusterId: '', brokers: [] };
  }
  return {
    errorCode: ErrorCode.NONE,
    endpointType,
    clusterId: broker.clusterId,
    controllerId: broker.nodeId,
    brokers: [{ brokerId: broker.nodeId, ...broker.advertised }],
    clusterAuthorizedOperations: request.includeClusterAuthorizedOperations ? clusterOperations : notAsked,
  };
});
