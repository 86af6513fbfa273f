// InitProducerId (KIP-98). 3 lets a producer keep its id (KIP-360), 5 belongs to KIP-890.
import { api, int16, int32, int64, string } from '../schema.ts';

export const InitProducerId = api({
  key: 22,
  name: 'InitProducerId',
  versions: [0, 5],
  flexibleSince: 2,
  request: {
    transactionalId: string.nullable(),
    transactionTimeoutMs: int32,
    producerId: int64.since(3).default(-1n),
    producerEpoch: int16.since(3).default(-1),
  },
  response: {
    throttleTimeMs: int32.default(0),
    errorCode: int16,
    producerId: int64.default(-1n),
    producerEpoch: int16,
  },
});
