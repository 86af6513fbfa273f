// AlterConfigs: replaces the whole configuration of a resource; 44 changes single entries.
import { api, array, boolean, int8, int16, int32, string } from '../schema.ts';

export const AlterConfigs = api({
  key: 33,
  name: 'AlterConfigs',
  versions: [0, 2],
  flexibleSince: 2,
  request: {
    resources: array({
      resourceType: int8,
      resourceName: string,
      configs: array({ name: string, value: string.nullable() }),
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
