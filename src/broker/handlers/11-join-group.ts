// JoinGroup, versions 0 to 9 (1: rebalance timeout, KIP-62; 4: member id first, KIP-394; 5: static members, KIP-345;
// 7: protocol type, KIP-559; 8: reason, KIP-800; 9: skipAssignment, KIP-814). Waits until the rebalance has a
// generation. Cooperative rebalances (KIP-429) need nothing here: they are the clients' agreement.
// Differs from Kafka: a second JoinGroup of a member answers the first (REBALANCE_IN_PROGRESS); metadata over 1 MiB
// gets INVALID_REQUEST here instead of UNKNOWN_SERVER_ERROR at SyncGroup.
import { JoinGroup } from '../../protocol/messages/11-join-group.ts';
import { handler } from '../handler.ts';

export const joinGroup = handler(JoinGroup, async (request, { broker, apiVersion, clientId, clientHost }) => {
  const answer = await broker.groups.join(
    request.groupId,
    apiVersion === 0 ? { ...request, rebalanceTimeoutMs: request.sessionTimeoutMs } : request,
    { clientId: clientId ?? '', clientHost },
    { memberIdFirst: apiVersion >= 4, skipsAssignment: apiVersion >= 9 },
  );
  return { ...answer, protocolName: answer.protocolName ?? (apiVersion < 7 ? '' : null) };
});
