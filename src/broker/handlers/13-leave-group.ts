// LeaveGroup, versions 0 to 5 (3: several members, static ones by instance id, KIP-345; 5: reason, KIP-800).
import { LeaveGroup } from '../../protocol/messages/13-leave-group.ts';
import { handler } from '../handler.ts';

export const leaveGroup = handler(LeaveGroup, (request, { broker, apiVersion }) => {
  const single = { memberId: request.memberId, groupInstanceId: null, reason: null };
  const leaving = apiVersion < 3 ? [single] : request.members;
  const { errorCode, memberErrors } = broker.groups.leave(request.groupId, leaving);
  if (apiVersion < 3) return { errorCode: errorCode || memberErrors[0]! };
  const members = memberErrors.map((memberError, i) => {
    const { memberId, groupInstanceId } = leaving[i]!;
    return { memberId, groupInstanceId, errorCode: memberError };
  });
  return { errorCode, members };
});
