// SaslAuthenticate (KIP-152). 1 brings the session's lifetime (KIP-368).
import { api, bytes, int16, int64, string } from '../schema.ts';

export const SaslAuthenticate = api({
  key: 36,
  name: 'SaslAuthenticate',
  versions: [0, 2],
  flexibleSince: 2,
  request: { authBytes: bytes },
  response: {
    errorCode: int16,
    errorMessage: string.nullable().default(null),
    authBytes: bytes,
    sessionLifetimeMs: int64.since(1),
  },
});
