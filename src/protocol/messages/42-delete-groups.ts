// DeleteGroups (KIP-229).
import { api, array, int16, int32, string } from '../schema.ts';

export const DeleteGroups = api({
  key: 42,
  name: 'DeleteGroups',
  versions: [0, 2],
  flexibleSince: 2,
  request: { groupsNames: array(string) },
  response: { throttleTimeMs: int32.default(0), results: array({ groupId: string, errorCode: int16 }) },
});
