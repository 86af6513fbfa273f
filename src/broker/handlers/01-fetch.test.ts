import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../../test/database.ts';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { type OpenLog, openLog } from '../../../test/open-log.ts';
import { Fetch } from '../../protocol/messages/01-fetch.ts';
import { Budget } from '../budget.ts';
import type { BrokerContext } from '../context.ts';
import { FetchSessions } from '../fetch-sessions.ts';
import { fetch } from './01-fetch.ts';

let database: TestDatabase;
let opened: OpenLog;
let broker: BrokerContext;

before(async () => {
  database = await createDatabase();
  opened = await openLog(database);
  const { log, topics } = opened;
  broker = topicBroker(topics, {}, { log, budget: new Budget(1024 * 1024), fetchSessions: new FetchSessions(10) });
});

after(async () => {
  await opened?.log.stop();
  await database?.drop();
});

/** Longer than any of it takes: what waits for it takes longer than half. */
const maxWaitMs = 60_000;

async function timed<T>(work: Promise<T>): Promise<{ result: T; ms: number }> {
  const begun = performance.now();
  return { result: await work, ms: performance.now() - begun };
}

test('a fetch of no partitions, which ends a session, is answered at once', async () => {
  const request = { replicaId: -1, maxWaitMs, minBytes: 1, maxBytes: 1000, sessionId: 7, sessionEpoch: -1 };
  const { ms } = await timed(call(Fetch, fetch, 11, { ...request, topics: [], forgottenTopicsData: [] }, broker));
  assert.ok(ms < maxWaitMs / 2);
});

test('what is appended to one partition while another is read from Postgres ends the wait', async () => {
  const { log, append } = opened;
  const topic = await opened.createTopic('moved', 2);
  await append(topic, 1, 0);
  const bytes = (await log.read(opened.partition(topic, 0), 0n, 1000, true)).bytes;
  const { read } = log;
  log.read = async (...of) => {
    log.read = read;
    const result = await read.apply(log, of);
    await append(topic, 1, 1);
    return result;
  };
  const partitions = [0, 1].map(partition => ({ partition, fetchOffset: 0n, partitionMaxBytes: 1000 }));
  const request = {
    replicaId: -1,
    maxWaitMs,
    minBytes: 2 * bytes,
    maxBytes: 10_000,
    topics: [{ topic: topic.name, partitions }],
    forgottenTopicsData: [],
  };
  const { ms, result } = await timed(call(Fetch, fetch, 11, request, broker));
  assert.deepEqual(
    result.responses[0]!.partitions.map(({ records }) => records?.length),
    [bytes, bytes],
  );
  assert.ok(ms < maxWaitMs / 2);
});

test('what a partition does not take of the bytes promised to it goes to the next', async () => {
  const topic = await opened.createTopic('three', 3);
  for (const partition of [0, 1, 2]) await opened.append(topic, 1, partition);
  const partitions = [0, 1, 2].map(partition => ({ partition, fetchOffset: 0n, partitionMaxBytes: 1000 }));
  const request = {
    replicaId: -1,
    maxWaitMs: 0,
    minBytes: 1,
    maxBytes: 1000,
    topics: [{ topic: topic.name, partitions }],
    forgottenTopicsData: [],
  };
  const { responses } = await call(Fetch, fetch, 11, request, broker);
  for (const { records } of responses[0]!.partitions) assert.ok(records!.length > 0);
});
