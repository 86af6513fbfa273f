// JoinGroup. 4 makes a new member come back with its id (KIP-394), 5 brings static members (KIP-345), 8 a reason
// (KIP-800), 9 lets a leader skip the assignment (KIP-814).
import { api, array, boolean, bytes, int16, int32, string } from '../schema.ts';

export const JoinGroup = api({
  key: 11,
  name: 'JoinGroup',
  versions: [0, 9],
  flexibleSince: 6,
  request: {
    groupId: string,
    sessionTimeoutMs: int32,
    rebalanceTimeoutMs: int32.since(1).default(-1),
    memberId: string,
    groupInstanceId: string.nullable().since(5).default(null),
    protocolType: string,
    protocols: array({ name: string, metadata: bytes }),
    reason: string.nullable().since(8).default(null),
  },
  response: {
    throttleTimeMs: int32.since(2),
    errorCode: int16,
    generationId: int32.default(-1),
    protocolType: string.nullable().since(7).default(null),
    protocolName: string.nullableSince(7),
    leader: string,
    skipAssignment: boolean.since(9),
    memberId: string,
    members: array({ memberId: string, groupInstanceId: string.nullable().since(5).default(null), metadata: bytes }),
  },
});
