// A change of the primary whose answer is lost: nobody passes until it is known who takes the records.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { batchOf, type OpenLog, openLog } from '../../test/open-log.ts';
import { ErrorCode } from '../protocol/errors.ts';
import type { Topic } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { type Switching, switchPrimary } from './cutover.ts';
import { Gates } from './gates.ts';

let database: TestDatabase;
let open: OpenLog;
let mirrorId: number;

before(async () => {
  database = await createDatabase();
  open = await openLog(database);
  const { rows } = await database.pool.query<{ id: number }>(
    `INSERT INTO kafka.mirrors (name) VALUES ('m') RETURNING mirror_id AS id`,
  );
  mirrorId = rows[0]!.id;
});
after(async () => {
  await open?.log.stop();
  await database?.drop();
});

const lost = new Error('Connection terminated unexpectedly');

/** Whose connection is lost when a change has committed; `settled` is asked for what is so. */
function switchingOf(gates: Gates, stopping: AbortSignal, settled: (topic: Topic) => Promise<void>): Switching {
  return {
    targetConfig: async () => undefined,
    modeOf: () => assert.fail('nobody asks'),
    topics: {
      settled,
      async setPrimary(topic: Topic, mirror: number | null) {
        await database.pool.query('UPDATE kafka.topics SET primary_mirror = $2 WHERE topic_id = $1', [
          topic.id,
          mirror,
        ]);
        throw lost;
      },
    },
    gates,
    mirrorId,
    lane: new WriteLane(database.pool),
    behind: async () => undefined,
    note: async () => {},
    restart: async () => {},
    stopping,
  };
}

test('a change that has committed unheard is one', async () => {
  const topic = await open.createTopic('heard');
  const gates = new Gates(open.log, 'm');
  let asked = 0;
  const switching = switchingOf(gates, new AbortController().signal, async () => {
    if (++asked === 1) throw lost;
    await open.topics.reread();
  });
  const changing = switchPrimary(switching, [topic], 'target', 60_000);
  const held = open.log.append(topic, open.partition(topic), batchOf(1), -1, false);
  await changing;
  assert.equal(topic.primaryMirror, mirrorId);
  // The next session has not let anybody through yet; and whoever did could not pass to this log.
  gates.of(topic, 0).open(undefined);
  assert.equal((await held.result).error, ErrorCode.NOT_LEADER_OR_FOLLOWER);
  assert.equal(open.partition(topic).end, 0n);
});

test('where the mirror stops before it is known, nobody passes in this process any more', async () => {
  const topic = await open.createTopic('unheard');
  const gates = new Gates(open.log, 'm');
  const stopping = new AbortController();
  const switching = switchingOf(gates, stopping.signal, async () => {
    stopping.abort();
    throw lost;
  });
  await assert.rejects(switchPrimary(switching, [topic], 'target', 60_000), lost);
  gates.remove();
  assert.equal(topic.primaryMirror, null, 'it is not known here');
  const pending = open.log.append(topic, open.partition(topic), batchOf(1), -1, false);
  assert.equal((await open.append(await open.createTopic('next'))).error, ErrorCode.NONE);
  assert.equal(open.partition(topic).end, 0n);
  await pending.expire(ErrorCode.REQUEST_TIMED_OUT);
});
