// Heartbeat. 3 brings static members (KIP-345).
import { api, int16, int32, string } from '../schema.ts';

export const Heartbeat = api({
  key: 12,
  name: 'Heartbeat',
  versions: [0, 4],
  flexibleSince: 4,
  request: {
    groupId: string,
    generationId: int32,
    memberId: string,
    groupInstanceId: string.nullable().since(3).default(null),
  },
  response: { throttleTimeMs: int32.since(1), errorCode: int16 },
});
