// DescribeConfigs. 1 brings the source and synonyms (KIP-226), 3 type and documentation (KIP-569).
import { api, array, boolean, int8, int16, int32, string } from '../schema.ts';

export const DescribeConfigs = api({
  key: 32,
  name: 'DescribeConfigs',
  versions: [0, 4],
  flexibleSince: 4,
  request: {
    resources: array({ resourceType: int8, resourceName: string, configurationKeys: array(string).nullable() }),
    includeSynonyms: boolean.since(1),
    includeDocumentation: boolean.since(3),
  },
  response: {
    throttleTimeMs: int32.default(0),
    results: array({
      errorCode: int16,
      errorMessage: string.nullable().default(null),
      resourceType: int8,
      resourceName: string,
      configs: array({
        name: string,
        value: string.nullable(),
        readOnly: boolean,
        isDefault: boolean.until(0),
        configSource: int8.since(1).default(-1),
        isSensitive: boolean,
        synonyms: array({ name: string, value: string.nullable(), source: int8 }).since(1),
        configType: int8.since(3),
        documentation: string.nullable().since(3),
      }),
    }),
  },
});
