// ListTransactions (KIP-664). 1 filters by duration (KIP-994), 2 by a pattern of ids (KIP-1152).
import { api, array, int16, int32, int64, string } from '../schema.ts';

export const ListTransactions = api({
  key: 66,
  name: 'ListTransactions',
  versions: [0, 2],
  flexibleSince: 0,
  request: {
    stateFilters: array(string),
    producerIdFilters: array(int64),
    durationFilter: int64.since(1).default(-1n),
    transactionalIdPattern: string.nullable().since(2).default(null),
  },
  response: {
    throttleTimeMs: int32.default(0),
    errorCode: int16,
    unknownStateFilters: array(string),
    transactionStates: array({ transactionalId: string, producerId: int64, transactionState: string }),
  },
});
