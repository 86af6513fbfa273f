// FindCoordinator. Key type 0 is a group, 1 a transactional id, 2 a share partition. 4 asks for several keys
// (KIP-699).
import { api, array, int8, int16, int32, string } from '../schema.ts';

export const FindCoordinator = api({
  key: 10,
  name: 'FindCoordinator',
  versions: [0, 6],
  flexibleSince: 3,
  request: { key: string.until(3), keyType: int8.since(1), coordinatorKeys: array(string).since(4) },
  response: {
    throttleTimeMs: int32.since(1),
    errorCode: int16.until(3),
    errorMessage: string.nullable().since(1).until(3).default(null),
    nodeId: int32.until(3),
    host: string.until(3),
    port: int32.until(3),
    coordinators: array({
      key: string,
      nodeId: int32,
      host: string,
      port: int32,
      errorCode: int16,
      errorMessage: string.nullable().default(null),
    }).since(4),
  },
});
