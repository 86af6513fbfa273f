// SaslHandshake. 0 is followed by bare SASL tokens, 1 by SaslAuthenticate requests (KIP-152).
import { api, array, int16, string } from '../schema.ts';

export const SaslHandshake = api({
  key: 17,
  name: 'SaslHandshake',
  versions: [0, 1],
  request: { mechanism: string },
  response: { errorCode: int16, mechanisms: array(string) },
});
