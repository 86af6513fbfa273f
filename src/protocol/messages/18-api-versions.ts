// ApiVersions. 3 names the client's software (KIP-511) and lists features (KIP-584). The response header is always
// version 0, see header.ts.
import { api, array, boolean, int16, int32, int64, string } from '../schema.ts';

export const ApiVersions = api({
  key: 18,
  name: 'ApiVersions',
  versions: [0, 4],
  flexibleSince: 3,
  request: { clientSoftwareName: string.since(3), clientSoftwareVersion: string.since(3) },
  response: {
    errorCode: int16,
    apiKeys: array({ apiKey: int16, minVersion: int16, maxVersion: int16 }),
    throttleTimeMs: int32.since(1),
    supportedFeatures: array({ name: string, minVersion: int16, maxVersion: int16 }).since(3).tag(0),
    finalizedFeaturesEpoch: int64.since(3).default(-1n).tag(1),
    finalizedFeatures: array({ name: string, maxVersionLevel: int16, minVersionLevel: int16 }).since(3).tag(2),
    zkMigrationReady: boolean.since(3).tag(3),
  },
});
