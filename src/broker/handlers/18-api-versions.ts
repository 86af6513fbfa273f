// ApiVersions, versions 0 to 4. The list is that of handlers/index.ts. A version not known is answered in version 0
// with UNSUPPORTED_VERSION and the list (KIP-511); dispatch.ts does that, since the request cannot be read.
import { ErrorCode } from '../../protocol/errors.ts';
import { ApiVersions } from '../../protocol/messages/18-api-versions.ts';
import { handler } from '../handler.ts';

/** KIP-511: what a client may call itself. */
const softwareName = /^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$/;

export const apiVersions = handler(ApiVersions, (request, { broker, apiVersion }) => {
  const named = softwareName.test(request.clientSoftwareName) && softwareName.test(request.clientSoftwareVersion);
  return {
    errorCode: apiVersion >= 3 && !named ? ErrorCode.INVALID_REQUEST : ErrorCode.NONE,
    apiKeys: broker.served.map(({ key, versions }) => ({
      apiKey: key,
      minVersion: versions[0],
      maxVersion: versions[1],
    })),
    throttleTimeMs: 0,
  };
});
