// DeleteGroups, versions 0 to 2 (KIP-229): removes groups without members, with their committed offsets.
import { DeleteGroups } from '../../protocol/messages/42-delete-groups.ts';
import { handler } from '../handler.ts';

export const deleteGroups = handler(DeleteGroups, async (request, { broker }) => {
  const outcome = await broker.groups.deleteGroups(request.groupsNames);
  return { results: [...outcome].map(([groupId, errorCode]) => ({ groupId, errorCode })) };
});
