// Sinks that read a remote cluster, here a second Millrace: it is killed and started again while they read.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { Cluster } from '../src/client/cluster.ts';
import { DeleteRecords } from '../src/protocol/messages/21-delete-records.ts';
import { TestServer } from './faults/server.ts';
import { eventually } from './open-log.ts';
import { openSinkRig, type RunningSink, type SinkRig } from './sink-rig.ts';

const retry = { retries: 50, initialRetryTime: 50, maxRetryTime: 300 };

let rig: SinkRig;
let remote: TestServer;
let kafka: kafkajs.Kafka;
let admin: kafkajs.Admin;
let producer: kafkajs.Producer;
before(async () => {
  rig = await openSinkRig();
  remote = await TestServer.start();
  kafka = new kafkajs.Kafka({ brokers: [remote.address], logLevel: kafkajs.logLevel.NOTHING, retry });
  admin = kafka.admin();
  producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await Promise.all([admin.connect(), producer.connect()]);
});
after(async () => {
  await Promise.all([producer?.disconnect(), admin?.disconnect()]);
  await rig?.remove();
  await remote?.remove();
});

/** Of partition 0, what lies before `offset`. */
async function deleteRecords(topic: string, offset: bigint): Promise<void> {
  const cluster = new Cluster({ bootstrap: [{ host: '127.0.0.1', port: remote.port }], clientId: 'test' });
  await cluster.topic(topic);
  const topics = [{ name: topic, partitions: [{ partitionIndex: 0, offset }] }];
  const answer = await cluster.request(cluster.leaderOf(topic, 0), DeleteRecords, { topics, timeoutMs: 10_000 });
  assert.equal(answer.topics[0]!.partitions[0]!.errorCode, 0);
  cluster.close();
}

const source = () => ({ bootstrap: remote.address, metadataMs: 200 });

async function createTopic(topic: string, numPartitions = 3): Promise<void> {
  await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true });
}

async function rowsOf(table: string, count: number, sink: RunningSink): Promise<void> {
  await eventually(async () => {
    const { state, reason } = sink.status();
    assert.notEqual(state, 'failed', reason);
    const [row] = await rig.query<{ rows: number }>(`SELECT count(*)::int AS rows FROM ${table}`);
    return row!.rows >= count;
  });
}

const committed = async (group: string, topic: string): Promise<bigint> =>
  (await admin.fetchOffsets({ groupId: group, topics: [topic] }))[0]!.partitions.reduce(
    (sum, { offset }) => sum + BigInt(Math.max(0, Number(offset))),
    0n,
  );

test('a remote topic is copied once, in order of its partitions, though its broker is killed; its group shows how far', async () => {
  await createTopic('copied');
  await rig.query('CREATE TABLE copied (part int, off bigint, n int)');
  const sink = await rig.start('copied', {
    topics: ['copied'],
    source: source(),
    mode: 'insert',
    key: 'none',
    columns: { part: 'partition', off: 'offset' },
    batchRows: 300,
    group: 'copiers',
  });
  await sink.reached('running');
  let n = 0;
  const send = (count: number) =>
    producer.send({
      topic: 'copied',
      messages: Array.from({ length: count }, () => ({ key: `${n}`, value: JSON.stringify({ n: n++ }) })),
    });
  for (let i = 0; i < 10; i++) await send(200);
  await remote.killBroker();
  await remote.start();
  for (let i = 0; i < 10; i++) await send(200);
  await rowsOf('copied', n, sink);
  const counts = 'SELECT count(*)::int AS rows, count(DISTINCT n)::int AS different FROM copied';
  const [found] = await rig.query<{ rows: number; different: number }>(counts);
  assert.equal(found!.different, n, 'records are missing');
  await eventually(async () => (await committed('copiers', 'copied')) === BigInt(found!.rows));
  const [ends] = await rig.query<{ rows: bigint }>(
    'SELECT sum(high)::int8 AS rows FROM (SELECT max(off) + 1 AS high FROM copied GROUP BY part) p',
  );
  assert.equal(BigInt(found!.rows), ends!.rows, 'a record is there twice, or was passed over');
  await sink.stop();
  // Where it is, is with the rows: a later one goes on there, whatever the group says.
  await admin.deleteGroups(['copiers']);
  await send(5);
  const later = await rig.start('copied', {
    topics: ['copied'],
    source: source(),
    mode: 'insert',
    key: 'none',
    columns: { part: 'partition', off: 'offset' },
    group: 'copiers',
  });
  await rowsOf('copied', found!.rows + 5, later);
  await later.caughtUp();
  assert.equal((await rig.query<{ rows: number }>(counts))[0]!.rows, found!.rows + 5);
  await later.stop();
});

test('topics of a pattern are taken in when they are made; a bad record is a dead letter in this log', async () => {
  await rig.query('CREATE TABLE taken (id int PRIMARY KEY, topic text, small int2)');
  const sink = await rig.start('taken', {
    topics: ['taken.*'],
    source: source(),
    table: 'taken',
    columns: { topic: 'topic' },
    errors: 'dead-letter',
    deadLetterTopic: 'taken-bad',
  });
  await sink.reached('waiting');
  for (const [i, topic] of ['taken.a', 'taken.b'].entries()) {
    await createTopic(topic, 1);
    const message = (id: number, small: number) => ({ key: JSON.stringify({ id }), value: JSON.stringify({ small }) });
    await producer.send({ topic, messages: [message(i, 1), message(100 + i, 99_999), message(10 + i, 2)] });
    await rowsOf('taken', 2 * (i + 1), sink);
  }
  await eventually(() => sink.status().lag === 0n);
  assert.deepEqual(
    (await rig.query<{ id: number; topic: string }>('SELECT id, topic FROM taken ORDER BY id')).map(
      ({ id, topic }) => `${id} ${topic}`,
    ),
    ['0 taken.a', '1 taken.b', '10 taken.a', '11 taken.b'],
  );
  const letters = await rig.records('taken-bad');
  assert.deepEqual(
    letters.map(({ key, headers }) => [key, headers['__connect.errors.topic'], headers['__connect.errors.offset']]),
    [
      ['{"id":100}', 'taken.a', '1'],
      ['{"id":101}', 'taken.b', '1'],
    ],
  );
  await eventually(async () => (await rig.query('SELECT FROM kafka.sink_dead_letters')).length === 0);
  await sink.stop();
});

test('records that are gone before they are written stop the sink; a topic made again is another', async () => {
  await createTopic('gone', 1);
  await rig.query('CREATE TABLE gone (id int PRIMARY KEY, n int)');
  const message = (id: number, n: number) => ({ key: JSON.stringify({ id }), value: JSON.stringify({ n }) });
  const definition = { topics: ['gone'], source: source() };
  await producer.send({ topic: 'gone', messages: [message(1, 1), message(2, 1)] });
  let sink = await rig.start('gone', definition);
  await rowsOf('gone', 2, sink);
  await sink.caughtUp();
  await sink.stop();
  await producer.send({ topic: 'gone', messages: [message(3, 1), message(4, 1)] });
  await deleteRecords('gone', 3n);
  sink = await rig.start('gone', definition);
  const { reason } = await sink.reached('failed');
  assert.match(reason!, /gone-0 has offsets 3 to 4, and the sink is at 2: records are gone/);
  await sink.stop();
  await admin.deleteTopics({ topics: ['gone'] });
  await createTopic('gone', 1);
  await producer.send({ topic: 'gone', messages: [5, 6, 7, 8].map(id => message(id, 2)) });
  sink = await rig.start('gone', definition);
  await rowsOf('gone', 6, sink);
  await sink.stop();
});

test('a source that cannot be reached is told, and keeps nothing from stopping', async () => {
  const sink = await rig.start('nowhere', { topics: ['t'], source: { bootstrap: '127.0.0.1:1' } });
  await eventually(() => sink.status().state === 'retrying' && /ECONNREFUSED/.test(sink.status().reason ?? ''));
  await sink.stop();
});
