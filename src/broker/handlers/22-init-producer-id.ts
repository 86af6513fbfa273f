// InitProducerId, versions 0 to 5, for idempotent producers: a new id from a Postgres sequence, epoch 0. As in Kafka,
// an id and epoch that an idempotent producer names are not carried on (it bumps its epoch itself, KIP-360).
// Differs from Kafka: transactions are not served; a transactional id gets TRANSACTIONAL_ID_AUTHORIZATION_FAILED, the
// code on which every client stops at once and says so.
import { ErrorCode } from '../../protocol/errors.ts';
import { InitProducerId } from '../../protocol/messages/22-init-producer-id.ts';
import { handler } from '../handler.ts';

export const initProducerId = handler(InitProducerId, async (request, { broker }) => {
  if (request.transactionalId === '') return { errorCode: ErrorCode.INVALID_REQUEST, producerEpoch: -1 };
  if (request.transactionalId !== null) {
    return { errorCode: ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, producerEpoch: -1 };
  }
  try {
    return { errorCode: ErrorCode.NONE, producerId: await broker.log.newProducerId(), producerEpoch: 0 };
  } catch (error) {
    broker.logger.warn({ err: error }, 'Postgres gave no producer id');
    return { errorCode: ErrorCode.COORDINATOR_NOT_AVAILABLE, producerEpoch: -1 };
  }
});
