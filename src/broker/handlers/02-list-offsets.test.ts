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

for (const sealed of [false, true]) {
  test(`the newest time of what is left after a trim, ${sealed ? 'in sealed segments' : 'in the open segment'}`, async () => {
    const { log, partition } = opened;
    const topic = await opened.createTopic(`newest-${sealed}`);
    const seal = async () => {
      if (!sealed) return;
      for (const segment of log.segments.unsealed(topic.id)) log.segments.close(segment);
      await log.segments.sealRolled();
    };
    const newest = async (start: bigint) => {
      await log.trim(partition(topic), start);
      return (await ask(topic, [-3n]))[0]!.offset;
    };
    // A row of two batches, whose newest record is the first; and a row after it.
    const first = append(topic, batch(900n, 100n));
    await Promise.all([first, append(topic, batch(300n, 200n))]);
    await seal();
    await append(topic, batch(250n, 260n));
    await seal();
    await append(topic, batch(220n, 220n));
    assert.equal(await newest(0n), 0n);
    assert.equal(await newest(1n), 2n, 'the batch that held it is cut');
    assert.equal(await newest(3n), 5n, 'the row that held it is cut');
    assert.equal(await newest(5n), 5n);
    assert.equal(await newest(6n), 6n, 'the first of several');
    assert.equal(await newest(8n), -1n);
  });
}
