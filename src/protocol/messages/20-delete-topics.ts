// DeleteTopics. 6 names topics by id too (KIP-516).
import { api, array, int16, int32, string, uuid } from '../schema.ts';

export const DeleteTopics = api({
  key: 20,
  name: 'DeleteTopics',
  versions: [0, 6],
  flexibleSince: 4,
  request: {
    topics: array({ name: string.nullable().default(null), topicId: uuid }).since(6),
    topicNames: array(string).until(5),
    timeoutMs: int32,
  },
  response: {
    throttleTimeMs: int32.since(1),
    responses: array({
      name: string.nullableSince(6),
      topicId: uuid.since(6),
      errorCode: int16,
      errorMessage: string.nullable().since(5).default(null),
    }),
  },
});
