// SyncGroup, versions 0 to 5 (3: static members, KIP-345; 5: protocol type and name, KIP-559, required there). Waits
// for the leader's assignment, and for that to be committed to Postgres.
import { ErrorCode } from '../../protocol/errors.ts';
import { SyncGroup } from '../../protocol/messages/14-sync-group.ts';
import { syncRefused } from '../groups/requests.ts';
import { handler } from '../handler.ts';

export const syncGroup = handler(SyncGroup, (request, { broker, apiVersion }) => {
  if (apiVersion >= 5 && (request.protocolType === null || request.protocolName === null)) {
    return syncRefused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL);
  }
  return broker.groups.sync(request.groupId, request);
});
