// DeleteTopics, versions 0 to 6: by name, or from version 6 by id (KIP-516). A topic is gone when the answer comes,
// committed offsets included; its tables are dropped in the background.
import { ErrorCode } from '../../protocol/errors.ts';
import { DeleteTopics } from '../../protocol/messages/20-delete-topics.ts';
import type { ResponseOf } from '../../protocol/schema.ts';
import type { Topic } from '../../storage/topics.ts';
import type { BrokerContext } from '../context.ts';
import { handler } from '../handler.ts';
import { repeatedIn } from '../repeated.ts';
import { failed, succeeded, topicFailure } from '../topic-failure.ts';

const noUuid = '00000000-0000-0000-0000-000000000000';
type Result = ResponseOf<typeof DeleteTopics>['responses'][number];

export const deleteTopics = handler(DeleteTopics, async ({ topics, topicNames }, { broker }) => {
  const wanted = [...topics, ...topicNames.map(name => ({ name, topicId: noUuid }))];
  const repeated = repeatedIn(wanted, keyOf);
  const told = new Set<string>();
  const responses: Result[] = [];
  const deleted = new Set<Topic>();
  for (const { name, topicId } of wanted) {
    const refuse = (message: string) => {
      responses.push({ name, topicId, ...failed(ErrorCode.INVALID_REQUEST, message) });
    };
    const key = keyOf({ name, topicId });
    if (name === null && topicId === noUuid) refuse('neither a name nor an id');
    else if (name !== null && topicId !== noUuid) refuse('a name and an id; only one may be given');
    else if (repeated.has(key)) {
      if (!told.has(key)) refuse('the topic is named more than once');
      told.add(key);
    } else {
      const topic = name === null ? broker.topics.byUuid(topicId) : broker.topics.get(name);
      if (topic === undefined) {
        responses.push({ name, topicId, ...failed(unknown(name)) });
      } else if (deleted.has(topic)) {
        refuse('the topic is given by name and by id');
      } else {
        deleted.add(topic);
        responses.push({ name: topic.name, topicId: topic.uuid, ...(await remove(topic, unknown(name), broker)) });
      }
    }
  }
  return { responses };
});

function keyOf({ name, topicId }: { name: string | null; topicId: string }): string {
  return `${topicId} ${name ?? ''}`;
}

function unknown(name: string | null): ErrorCode {
  return name === null ? ErrorCode.UNKNOWN_TOPIC_ID : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
}

async function remove(topic: Topic, ifGone: ErrorCode, broker: BrokerContext) {
  try {
    await broker.topics.delete(topic);
    broker.logger.info({ topic: topic.name }, 'topic deleted');
    return succeeded;
  } catch (error) {
    const outcome = topicFailure(error, topic.name, broker.logger);
    return outcome.errorCode === ErrorCode.UNKNOWN_TOPIC_OR_PARTITION ? failed(ifGone) : outcome;
  }
}
