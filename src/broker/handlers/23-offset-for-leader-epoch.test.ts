import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { openLog } from '../../../test/open-log.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { OffsetForLeaderEpoch } from '../../protocol/messages/23-offset-for-leader-epoch.ts';
import { offsetForLeaderEpoch } from './23-offset-for-leader-epoch.ts';

test('a database that fails is an error of the partitions that need it', async t => {
  const database = await createDatabase();
  t.after(() => database.drop());
  const before = await openLog(database);
  const former = before.log.epoch;
  await before.createTopic('epochs');
  await before.log.stop();
  const { log, topics } = await openLog(database);
  t.after(() => log.stop());
  const ask = async () => {
    const partitions = [former, log.epoch].map(leaderEpoch => ({ partition: 0, leaderEpoch }));
    const request = { topics: [{ topic: 'epochs', partitions }] };
    const response = await call(
      OffsetForLeaderEpoch,
      offsetForLeaderEpoch,
      4,
      request,
      topicBroker(topics, {}, { log }),
    );
    return response.topics[0]!.partitions.map(({ errorCode, endOffset }) => [errorCode, endOffset]);
  };
  await database.pool.query('ALTER TABLE kafka.leader_epochs RENAME TO elsewhere');
  assert.deepEqual(await ask(), [
    [ErrorCode.KAFKA_STORAGE_ERROR, -1n],
    [ErrorCode.NONE, 0n],
  ]);
  await database.pool.query('ALTER TABLE kafka.elsewhere RENAME TO leader_epochs');
  assert.deepEqual(await ask(), [
    [ErrorCode.NONE, 0n],
    [ErrorCode.NONE, 0n],
  ]);
});
