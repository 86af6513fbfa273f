import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDatabase } from '../../test/database.ts';
import { openLog } from '../../test/open-log.ts';

test('an epoch ends where the next begins, and before anything was written in it too', async t => {
  const database = await createDatabase();
  t.after(() => database.drop());
  const first = await openLog(database);
  const topic = await first.createTopic('epochs');
  const of = first.log.epoch;
  await first.log.stop();
  const second = await openLog(database);
  t.after(() => second.log.stop());
  const partition = second.partition(second.topics.get(topic.name)!);
  // What a consumer asks that found the log empty in the first term.
  assert.deepEqual(await second.log.epochEnd(partition, of), { epoch: of, offset: 0n });
  await second.append(second.topics.get(topic.name)!);
  assert.deepEqual(await second.log.epochEnd(partition, of), { epoch: of, offset: 0n });
  assert.deepEqual(await second.log.epochEnd(partition, of + 1), { epoch: of + 1, offset: 1n });
  assert.deepEqual(await second.log.epochEnd(partition, of + 2), { epoch: -1, offset: -1n });
  assert.deepEqual(await second.log.epochEnd(partition, -1), { epoch: -1, offset: -1n });
});
