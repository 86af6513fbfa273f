// ListGroups, versions 0 to 5 (4: by state, KIP-518; 5: by type, KIP-848). Groups with members, and those without that
// have committed offsets. Every group is of type classic; filters ignore case, an unknown value matches nothing.
import { ListGroups } from '../../protocol/messages/16-list-groups.ts';
import { handler } from '../handler.ts';

const groupType = 'classic';

export const listGroups = handler(ListGroups, async (request, { broker }) => {
  const { errorCode, groups } = await broker.groups.list();
  const passes = (filter: readonly string[], value: string) =>
    filter.length === 0 || filter.some(allowed => allowed.trim().toLowerCase() === value.toLowerCase());
  return {
    errorCode,
    groups: groups
      .filter(({ state }) => passes(request.statesFilter, state) && passes(request.typesFilter, groupType))
      .map(({ groupId, protocolType, state }) => ({ groupId, protocolType, groupState: state, groupType })),
  };
});
