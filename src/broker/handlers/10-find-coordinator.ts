// FindCoordinator, versions 0 to 6 (4: several keys at once, KIP-699; 6: share groups, KIP-932). This broker
// coordinates every group.
// Differs from Kafka: transactions are not served, so a key of type 1 gets TRANSACTIONAL_ID_AUTHORIZATION_FAILED, the
// one error at which librdkafka gives up at once (it retries every other) and the Java client does too. Share groups
// get INVALID_REQUEST, as from a Kafka broker without them.
import { ErrorCode } from '../../protocol/errors.ts';
import { FindCoordinator } from '../../protocol/messages/10-find-coordinator.ts';
import { handler } from '../handler.ts';

const keyTypes = { group: 0, transaction: 1 } as const;

export const findCoordinator = handler(FindCoordinator, (request, { broker, apiVersion }) => {
  const { keyType } = request;
  const refused = (errorCode: number, errorMessage: string) => ({
    errorCode,
    errorMessage,
    nodeId: -1,
    host: '',
    port: -1,
  });
  const answer =
    keyType === keyTypes.group
      ? { errorCode: ErrorCode.NONE, errorMessage: null, nodeId: broker.nodeId, ...broker.advertised }
      : keyType === keyTypes.transaction
        ? refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, 'Millrace does not serve transactions yet')
        : refused(ErrorCode.INVALID_REQUEST, `there are no coordinators of type ${keyType}`);
  return apiVersion < 4 ? answer : { coordinators: request.coordinatorKeys.map(key => ({ key, ...answer })) };
});
