import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, onServer, type TestDatabase } from '../../../test/database.ts';
import { topicBroker } from '../../../test/handler-call.ts';
import { batchOf, eventually, type OpenLog, openLog } from '../../../test/open-log.ts';
import { readRequest, writeRequest } from '../../protocol/compile.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { Produce } from '../../protocol/messages/00-produce.ts';
import type { ResponseOf } from '../../protocol/schema.ts';
import type { Topic } from '../../storage/topics.ts';
import { Ending } from '../ending.ts';
import { produce } from './00-produce.ts';

let database: TestDatabase;
let opened: OpenLog;
let topic: Topic;

before(async () => {
  database = await createDatabase();
  opened = await openLog(database);
  topic = await opened.createTopic('waits');
  await opened.append(topic);
  // Postgres is there, and lets nobody in.
  const { pathname } = new URL(database.url);
  const name = pathname.slice(1);
  await onServer(async client => {
    await client.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await client.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
  });
  await eventually(() => !opened.log.leading);
});

after(async () => {
  await opened?.log.stop();
  await database?.drop();
});

function errorsOf(answer: unknown): number[] {
  const { responses } = answer as ResponseOf<typeof Produce>;
  return responses.flatMap(({ partitionResponses }) => partitionResponses.map(({ errorCode }) => errorCode));
}

for (const [acks, timeoutMs] of [
  [0, 60_000],
  [-1, 0],
] as const) {
  test(`acks=${acks} with a timeout of ${timeoutMs} ms keeps no bytes for ever when nothing commits`, async t => {
    const held: Promise<unknown>[] = [];
    let closed: string | undefined;
    const topicData = [{ name: topic.name, partitionData: [{ index: 0, records: batchOf(1) }] }];
    const bytes = Buffer.concat(writeRequest(Produce, 9, { acks, timeoutMs, topicData }));
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const answered = produce.handle(readRequest(Produce, 9, bytes), {
      broker: topicBroker(opened.topics, {}, { log: opened.log }),
      apiVersion: 9,
      clientId: 'test',
      clientHost: '127.0.0.1',
      ending: new Ending(),
      readyForNext() {},
      closeConnection(reason) {
        closed = reason;
      },
      hold: work => held.push(work),
      whenSent() {},
    });
    await new Promise(setImmediate); // the answers are awaited
    t.mock.timers.tick(30_000);
    t.mock.timers.reset();
    const answer = await answered;
    await Promise.all(held);
    assert.equal(held.length, 1);
    if (acks === 0) assert.match(closed!, /REQUEST_TIMED_OUT/);
    else assert.deepEqual(errorsOf(answer), [ErrorCode.REQUEST_TIMED_OUT]);
  });
}
