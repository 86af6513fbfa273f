// DescribeGroups. 3 brings authorized operations (KIP-430), 4 static members, 6 GROUP_ID_NOT_FOUND with a message
// (KIP-1043).
import { api, array, boolean, bytes, int16, int32, string } from '../schema.ts';

export const DescribeGroups = api({
  key: 15,
  name: 'DescribeGroups',
  versions: [0, 6],
  flexibleSince: 5,
  request: { groups: array(string), includeAuthorizedOperations: boolean.since(3) },
  response: {
    throttleTimeMs: int32.since(1),
    groups: array({
      errorCode: int16,
      errorMessage: string.nullable().since(6).default(null),
      groupId: string,
      groupState: string,
      protocolType: string,
      protocolData: string,
      members: array({
        memberId: string,
        groupInstanceId: string.nullable().since(4).default(null),
        clientId: string,
        clientHost: string,
        memberMetadata: bytes,
        memberAssignment: bytes,
      }),
      authorizedOperations: int32.since(3).default(-2147483648),
    }),
  },
});
