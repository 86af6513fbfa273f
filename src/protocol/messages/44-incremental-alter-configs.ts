// IncrementalAlterConfigs (KIP-339). Operations: 0 set, 1 delete, 2 append, 3 subtract.
import { api, array, boolean, int8, int16, int32, string } from '../schema.ts';

export const IncrementalAlterConfigs = api({
  key: 44,
  name: 'IncrementalAlterConfigs',
  versions: [0, 1],
  flexibleSince: 1,
  request: {
    resources: array({
      resourceType: int8,
      resourceName: string,
      configs: array({ name: string, configOperation: int8, value: string.nullable() }),
    }),
    validateOnly: boolean,
  },
  response: {
    throttleTimeMs: int32.default(0),
    responses: array({
      errorCode: int16,
      errorMessage: string.nullable().default(null),
      resourceType: int8,
      resourceName: string,
    }),
  },
});
