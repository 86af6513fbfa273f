// Acknowledged and visible means committed: with commits held back, refused, cut off, or made by nobody's right.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ErrorCode } from '../../src/protocol/errors.ts';
import { Produce } from '../../src/protocol/messages/00-produce.ts';
import { buildBatch } from '../../src/protocol/records.ts';
import { heldCommits, holdCommits, releaseCommits } from './held-commits.ts';
import {
  batchOf,
  createTopic,
  fetchOnce,
  latest,
  listOffset,
  newProducerId,
  produce,
  readAll,
  record,
} from './kafka.ts';
import { ServerEndedError, TestServer } from './server.ts';
import { WireClient } from './wire.ts';

// One writer, so that what is produced at once commits together.
const server = await TestServer.start({ settings: { 'log.writer.connections': '1' } });
const sql = await server.sql();
after(async () => {
  await sql.end().catch(() => {});
  await server.remove();
});
const connect = () => WireClient.connect(server.port);
const values = async (client: WireClient, topic: string) =>
  (await readAll(client, topic, 0)).map(({ value }) => value!.toString());

/** The table that a topic's batches go to now. */
async function segmentOf(topic: string): Promise<string> {
  const { rows } = await sql.query<{ id: number }>(
    `SELECT max(segment_id) AS id FROM kafka.segments JOIN kafka.topics USING (topic_id) WHERE name = $1`,
    [topic],
  );
  return `kafka.segment_${rows[0]!.id}`;
}

test('while a commit is held, nothing is acknowledged, and no reader sees it', async () => {
  const client = await connect();
  for (const topic of ['held', 'held-acks-1']) {
    await createTopic(client, topic);
    assert.equal((await produce(client, topic, 0, batchOf('before'))).errorCode, ErrorCode.NONE);
  }
  const probe = await server.sql();
  await holdCommits(sql, probe);
  const writers = [await connect(), await connect()];
  const acknowledged: string[] = [];
  const pending = [
    produce(writers[0]!, 'held', 0, batchOf('held')).then(answer => {
      acknowledged.push('acks=all');
      return answer;
    }),
    produce(writers[1]!, 'held-acks-1', 0, batchOf('held'), { acks: 1 }).then(answer => {
      acknowledged.push('acks=1');
      return answer;
    }),
  ];
  await heldCommits(sql, 'millrace writer', 1);
  const poll = await connect();
  let polled = false;
  const longPoll = fetchOnce(poll, 'held', 0, 1n, { maxWaitMs: 60_000 }).then(answer => {
    polled = true;
    return answer;
  });
  for (const topic of ['held', 'held-acks-1']) {
    const answer = await fetchOnce(client, topic, 0, 1n);
    assert.deepEqual([answer.errorCode, answer.highWatermark, answer.records?.length], [0, 1n, 0]);
    assert.equal((await fetchOnce(client, topic, 0, 2n)).errorCode, ErrorCode.OFFSET_OUT_OF_RANGE);
    assert.equal(await listOffset(client, topic, 0, latest), 1n);
    assert.deepEqual(await values(client, topic), ['before']);
    const { rows } = await sql.query(`SELECT count(*)::int AS n FROM ${await segmentOf(topic)}`);
    assert.equal(rows[0].n, 1);
  }
  assert.deepEqual(acknowledged, []);
  assert.equal(polled, false);

  await releaseCommits(sql);
  const answers = await Promise.all(pending);
  assert.deepEqual(
    answers.map(({ errorCode, baseOffset }) => [errorCode, baseOffset]),
    [
      [0, 1n],
      [0, 1n],
    ],
  );
  assert.equal((await longPoll).highWatermark, 2n);
  assert.deepEqual(await values(client, 'held'), ['before', 'held']);
  assert.deepEqual(await values(client, 'held-acks-1'), ['before', 'held']);
  await probe.end();
});

test('a held commit whose backend is ended is not acknowledged before the standby would have it', async () => {
  const client = await connect();
  await createTopic(client, 'cut-off');
  await produce(client, 'cut-off', 0, batchOf('before'));
  const probe = await server.sql();
  await holdCommits(sql, probe);
  const writer = await connect();
  let acknowledged = false;
  const pending = produce(writer, 'cut-off', 0, batchOf('held')).then(answer => {
    acknowledged = true;
    return answer;
  });
  await heldCommits(sql, 'millrace writer', 1);
  await sql.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'millrace writer'`);
  await heldCommits(sql, 'millrace leader', 1); // the broker is beginning a new term, and that commit is held as well
  assert.equal((await fetchOnce(client, 'cut-off', 0, 1n)).highWatermark, 1n);
  assert.equal(acknowledged, false);
  await releaseCommits(sql);
  const { errorCode, baseOffset } = await pending;
  assert.deepEqual([errorCode, baseOffset], [ErrorCode.NONE, 1n]);
  assert.deepEqual(await values(client, 'cut-off'), ['before', 'held']);
  await probe.end();
});

test('a commit that fails leaves no record and no hole, and others that would have committed with it do', async () => {
  const client = await connect();
  for (const topic of ['refused', 'fine']) {
    await createTopic(client, topic);
    await produce(client, topic, 0, batchOf('before'));
  }
  await sql.query(`CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$`);
  await sql.query(`CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON ${await segmentOf('refused')}
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.refuse()`);
  const producerId = await newProducerId(client);
  const idempotent = buildBatch({ records: [record('again')], producerId, producerEpoch: 0, baseSequence: 0 });
  const both = await client.request(Produce, 9, {
    acks: -1,
    timeoutMs: 60_000,
    topicData: ['refused', 'fine', 'refused'].map((name, i) => ({
      name,
      partitionData: [{ index: 0, records: i === 2 ? Buffer.from(idempotent) : batchOf(`${name} ${i}`) }],
    })),
  });
  assert.deepEqual(
    both.responses.map(({ name, partitionResponses: [answer] }) => [name, answer!.errorCode, answer!.baseOffset]),
    [
      ['refused', ErrorCode.UNKNOWN_SERVER_ERROR, -1n],
      ['fine', ErrorCode.NONE, 1n],
      ['refused', ErrorCode.UNKNOWN_SERVER_ERROR, -1n],
    ],
  );
  assert.equal(await listOffset(client, 'refused', 0, latest), 1n);
  assert.deepEqual(await values(client, 'refused'), ['before']);
  assert.deepEqual(await values(client, 'fine'), ['before', 'fine 1']);

  await sql.query(`DROP TRIGGER refuse ON ${await segmentOf('refused')}`);
  // The refused batch was never appended, so it is no duplicate now.
  assert.deepEqual((await produce(client, 'refused', 0, Buffer.from(idempotent))).baseOffset, 1n);
  assert.deepEqual((await produce(client, 'refused', 0, Buffer.from(idempotent))).baseOffset, 1n);
  assert.deepEqual((await produce(client, 'refused', 0, batchOf('after'))).baseOffset, 2n);
  assert.deepEqual(await values(client, 'refused'), ['before', 'again', 'after']);
  const { rows } = await sql.query(
    `SELECT base_offset::int, last_offset::int FROM ${await segmentOf('refused')} s ORDER BY s.last_offset`,
  );
  assert.deepEqual(
    rows.map(row => [row.base_offset, row.last_offset]),
    [
      [0, 0],
      [1, 1],
      [2, 2],
    ],
  );
});

test('a second broker on the same database is refused with a sentence, and the first goes on', async () => {
  const client = await connect();
  await createTopic(client, 'defended');
  const second = TestServer.start({ databaseUrl: server.databaseUrl });
  await assert.rejects(second, (error: unknown) => {
    assert.ok(error instanceof ServerEndedError);
    assert.equal(error.exitCode, 1);
    const sentence = error.message.split('\n').find(line => line.includes('millrace: '));
    assert.match(
      sentence ?? '',
      /another Millrace broker \(127\.0\.0\.1:\d+, since .*\) is running on this database; stop it/,
    );
    return true;
  });
  assert.equal((await produce(client, 'defended', 0, batchOf('mine'))).errorCode, ErrorCode.NONE);
});

test('an append under an epoch that is over changes nothing; the broker ends, for another has led', async () => {
  const fenced = await TestServer.start({ databaseUrl: await ownDatabase('epoch_over') });
  const database = await fenced.sql();
  try {
    const client = await WireClient.connect(fenced.port);
    await createTopic(client, 'fenced');
    await produce(client, 'fenced', 0, batchOf('before'));
    await database.query(`UPDATE kafka.brokers SET epoch = nextval('kafka.broker_epochs')`);
    const stale = await produce(client, 'fenced', 0, batchOf('stale')).catch((error: Error) => error);
    assert.ok(stale instanceof Error || stale.errorCode === ErrorCode.NOT_LEADER_OR_FOLLOWER);
    assert.equal(await fenced.exitCode, 1);
    assert.match(fenced.log, /another Millrace broker has led this database/);
    await fenced.start();
    const again = await WireClient.connect(fenced.port);
    assert.equal((await produce(again, 'fenced', 0, batchOf('after'))).baseOffset, 1n);
    assert.deepEqual(await values(again, 'fenced'), ['before', 'after']);
  } finally {
    await database.end();
    await fenced.remove();
  }
});

test('a broker that was asleep while another took over writes nothing when it wakes, and ends', async () => {
  const sleeper = await TestServer.start({ databaseUrl: await ownDatabase('taken_over') });
  const asleep = await WireClient.connect(sleeper.port);
  await createTopic(asleep, 'taken-over');
  await produce(asleep, 'taken-over', 0, batchOf('first'));
  process.kill(sleeper.pid, 'SIGSTOP');
  const stale = produce(asleep, 'taken-over', 0, batchOf('stale')).catch((error: Error) => error);
  const database = new URL(sleeper.databaseUrl).pathname.slice(1);
  await sql.query(
    `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'millrace leader'`,
    [database],
  );
  const heir = await TestServer.start({ databaseUrl: sleeper.databaseUrl });
  try {
    const heirClient = await WireClient.connect(heir.port);
    assert.equal((await produce(heirClient, 'taken-over', 0, batchOf('second'))).baseOffset, 1n);
    process.kill(sleeper.pid, 'SIGCONT');
    assert.equal(await sleeper.exitCode, 1);
    const answer = await stale;
    assert.ok(answer instanceof Error || answer.errorCode === ErrorCode.NOT_LEADER_OR_FOLLOWER);
    assert.equal((await produce(heirClient, 'taken-over', 0, batchOf('third'))).baseOffset, 2n);
    assert.deepEqual(await values(heirClient, 'taken-over'), ['first', 'second', 'third']);
  } finally {
    await heir.remove();
    await sleeper.remove();
  }
});

/** Another database on the same PostgreSQL. */
async function ownDatabase(name: string): Promise<string> {
  await sql.query(`CREATE DATABASE ${name}`);
  const url = new URL(server.databaseUrl);
  url.pathname = `/${name}`;
  return url.href;
}
