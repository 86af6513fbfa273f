import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { type OpenLog, openLog } from '../../../test/open-log.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { ListOffsets } from '../../protocol/messages/02-list-offsets.ts';
import { writeCrc } from '../../protocol/record-batch.ts';
import { buildBatch } from '../../protocol/records.ts';
import type { Topic } from '../../storage/topics.ts';
import { listOffsets } from './02-list-offsets.ts';

let database: TestDatabase;
let opened: OpenLog;

before(async () => {
  database = await createDatabase();
  opened = await openLog(database);
});

after(async () => {
  await opened?.log.stop();
  await database?.drop();
});

async function append(topic: Topic, batch: Buffer): Promise<void> {
  const { error } = await opened.log.append(topic, opened.partition(topic), batch, -1, false).result;
  assert.equal(error, 0);
}

const batch = (...timestamps: bigint[]) => buildBatch({ records: timestamps.map(timestamp => ({ timestamp })) });

async function ask(topic: Topic, timestamps: readonly bigint[]) {
  const partitions = timestamps.map(timestamp => ({ partitionIndex: 0, timestamp }));
  const request = { replicaId: -1, topics: [{ name: topic.name, partitions }] };
  const broker = topicBroker(opened.topics, {}, { log: opened.log });
  const response = await call(ListOffsets, listOffsets, 4, request, broker);
  return response.topics[0]!.partitions.map(({ errorCode, offset }) => ({ errorCode, offset }));
}

test('a record that was trimmed away does not hide a later one of the time asked for', async () => {
  const topic = await opened.createTopic('trimmed');
  await append(topic, batch(500n, 100n));
  await append(topic, batch(600n));
  await opened.log.trim(opened.partition(topic), 1n);
  assert.deepEqual(await ask(topic, [500n]), [{ errorCode: 0, offset: 2n }]);
});

test('stored bytes that are no records are an error of their partition, not of the request', async () => {
  const topic = await opened.createTopic('garbage');
  const bytes = batch(500n);
  bytes.fill(0xff, 61);
  writeCrc(bytes);
  await append(topic, bytes);
  assert.deepEqual(await ask(topic, [500n]), [{ errorCode: ErrorCode.CORRUPT_MESSAGE, offset: -1n }]);
});

test('a partition that is asked for twice is refused', async () => {
  const topic = await opened.createTopic('twice');
  await append(topic, batch(500n));
  const refused = { errorCode: ErrorCode.INVALID_REQUEST, offset: -1n };
  assert.deepEqual(await ask(topic, [500n, 500n]), [refused, refused]);
});
