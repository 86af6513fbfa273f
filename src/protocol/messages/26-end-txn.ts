// EndTxn (KIP-98). 5 answers with the producer's next epoch (KIP-890).
import { api, boolean, int16, int32, int64, string } from '../schema.ts';

export const EndTxn = api({
  key: 26,
  name: 'EndTxn',
  versions: [0, 5],
  flexibleSince: 3,
  request: { transactionalId: string, producerId: int64, producerEpoch: int16, committed: boolean },
  response: {
    throttleTimeMs: int32.default(0),
    errorCode: int16,
    producerId: int64.since(5).default(-1n),
    producerEpoch: int16.since(5).default(-1),
  },
});
