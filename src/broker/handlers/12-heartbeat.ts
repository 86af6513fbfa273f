// Heartbeat, versions 0 to 4 (3: static members, KIP-345). Keeps a member's session; REBALANCE_IN_PROGRESS asks it to
// join again.
import { Heartbeat } from '../../protocol/messages/12-heartbeat.ts';
import { handler } from '../handler.ts';

export const heartbeat = handler(Heartbeat, (request, { broker }) => ({
  errorCode: broker.groups.heartbeat(request.groupId, request),
}));
