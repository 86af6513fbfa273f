// CreatePartitions (KIP-195): `count` is the new total.
import { api, array, boolean, int16, int32, string } from '../schema.ts';

export const CreatePartitions = api({
  key: 37,
  name: 'CreatePartitions',
  versions: [0, 3],
  flexibleSince: 2,
  request: {
    topics: array({ name: string, count: int32, assignments: array({ brokerIds: array(int32) }).nullable() }),
    timeoutMs: int32,
    validateOnly: boolean,
  },
  response: {
    throttleTimeMs: int32.default(0),
    results: array({ name: string, errorCode: int16, errorMessage: string.nullable().default(null) }),
  },
});
