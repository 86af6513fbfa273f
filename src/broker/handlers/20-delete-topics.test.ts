import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { DeleteTopics } from '../../protocol/messages/20-delete-topics.ts';
import { Topics } from '../../storage/topics.ts';
import { deleteTopics } from './20-delete-topics.ts';

const noUuid = '00000000-0000-0000-0000-000000000000';
let database: TestDatabase;
let topics: Topics;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());
beforeEach(async () => {
  await database.pool.query('DELETE FROM kafka.topics');
  topics = await Topics.load(database.pool);
  for (const name of ['a', 'b', 'c']) await topics.create({ name, partitionCount: 1, config: {} });
});

const ask = (version: number, request: object) =>
  call(DeleteTopics, deleteTopics, version, { timeoutMs: 1000, ...request }, topicBroker(topics));
const names = () => Array.from(topics.all(), ({ name }) => name);

test('by name in every version', async () => {
  for (let version = 0; version <= 6; version++) {
    const name = `v${version}`;
    await topics.create({ name, partitionCount: 1, config: {} });
    const request = { topicNames: [name, 'none'] };
    const { responses } = await ask(version, {
      ...request,
      topics: [{ name }, { name: 'none' }].map(each => ({ ...each, topicId: noUuid })),
    });
    assert.deepEqual(
      responses.map(each => [each.name, each.errorCode]),
      [
        [name, ErrorCode.NONE],
        ['none', ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
      ],
    );
  }
  assert.deepEqual(names(), ['a', 'b', 'c']);
});

test('by id, and every way to name a topic wrongly', async () => {
  const idOf = (name: string) => topics.get(name)!.uuid;
  const unknown = '11111111-2222-3333-4444-555555555555';
  const [a, b] = [idOf('a'), idOf('b')];
  const { responses } = await ask(6, {
    topics: [
      { name: null, topicId: a },
      { name: null, topicId: unknown },
      { name: null, topicId: noUuid },
      { name: 'b', topicId: b },
      { name: 'c', topicId: noUuid },
      { name: 'c', topicId: noUuid },
      { name: 'a', topicId: noUuid },
    ],
  });
  assert.deepEqual(
    responses.map(each => [each.name, each.topicId, each.errorCode]),
    [
      ['a', a, ErrorCode.NONE],
      [null, unknown, ErrorCode.UNKNOWN_TOPIC_ID],
      [null, noUuid, ErrorCode.INVALID_REQUEST],
      ['b', b, ErrorCode.INVALID_REQUEST],
      ['c', noUuid, ErrorCode.INVALID_REQUEST],
      ['a', noUuid, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
    ],
  );
  assert.deepEqual(names(), ['b', 'c']);
});
