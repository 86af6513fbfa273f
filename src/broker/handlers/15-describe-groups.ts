// DescribeGroups, versions 0 to 6 (3: authorized operations, KIP-430; 4: static members, KIP-345; 6: an error for a
// group that does not exist, KIP-1043, which before is state Dead without one). A group without members is Empty.
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeGroups } from '../../protocol/messages/15-describe-groups.ts';
import { groupOperations, notAsked } from '../authorized-operations.ts';
import { handler } from '../handler.ts';

export const describeGroups = handler(DescribeGroups, async (request, { broker, apiVersion }) => {
  const described = await broker.groups.describe(request.groups);
  return {
    groups: described.map(({ groupId, errorCode, state, protocolType, protocol, members }) => {
      const absent = errorCode === ErrorCode.GROUP_ID_NOT_FOUND;
      const answered = absent && apiVersion < 6 ? ErrorCode.NONE : errorCode;
      const authorized = request.includeAuthorizedOperations && answered === ErrorCode.NONE;
      return {
        groupId,
        errorCode: answered,
        errorMessage: absent ? `group ${groupId} does not exist` : null,
        groupState: state,
        protocolType,
        protocolData: protocol,
        members: members.map(({ member, metadata }) => ({
          memberId: member.memberId,
          groupInstanceId: member.groupInstanceId,
          clientId: member.client.clientId,
          clientHost: `/${member.client.clientHost}`, // as Java prints an address, and tools expect it
          memberMetadata: metadata,
          memberAssignment: member.assignment,
        })),
        authorizedOperations: authorized ? groupOperations : notAsked,
      };
    }),
  };
});
