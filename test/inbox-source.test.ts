// Inboxes that read a remote cluster, here a second Millrace: it is killed and started again while they read.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { Cluster } from '../src/client/cluster.ts';
import { DeleteRecords } from '../src/protocol/messages/21-delete-records.ts';
import { type DeliverRig, openDeliverRig, type Server, StreamClient } from './deliver-rig.ts';
import { TestServer } from './faults/server.ts';
import { eventually } from './open-log.ts';

const retry = { retries: 50, initialRetryTime: 50, maxRetryTime: 300 };

let rig: DeliverRig;
let remote: TestServer;
let admin: kafkajs.Admin;
let producer: kafkajs.Producer;
before(async () => {
  [rig, remote] = await Promise.all([openDeliverRig(), TestServer.start()]);
  const kafka = new kafkajs.Kafka({ brokers: [remote.address], logLevel: kafkajs.logLevel.NOTHING, retry });
  admin = kafka.admin();
  producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await Promise.all([admin.connect(), producer.connect()]);
});
after(async () => {
  await Promise.all([producer?.disconnect(), admin?.disconnect()]);
  await rig?.remove();
  await remote?.remove();
});

const source = () => ({ bootstrap: remote.address, metadataMs: 200 });
const createTopic = (topic: string, numPartitions = 1) =>
  admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true });
const statusOf = ({ deliveries }: Server, inbox: string) => deliveries.status().find(({ name }) => name === inbox)!;

let sent = 0;
/** Each another, for one of ten subscribers. */
async function send(topic: string, count: number): Promise<void> {
  const messages = Array.from({ length: count }, () => ({ key: `u${sent % 10}`, value: `${sent++}` }));
  await producer.send({ topic, messages });
}

async function committed(group: string, topic: string): Promise<bigint[]> {
  const [answer] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
  return answer!.partitions.toSorted((a, b) => a.partition - b.partition).map(({ offset }) => BigInt(offset));
}

test('each record is an event once, though its broker is killed and positions are lost; a group shows how far', async () => {
  await createTopic('copied', 3);
  const definition = { topics: ['copied'], source: source(), window: '1s', group: 'readers' };
  let server = await rig.serve({ news: definition });
  const stream = await StreamClient.open(`${server.url}/v1/stream?subscriber=u0`);
  for (let i = 0; i < 5; i++) await send('copied', 100);
  await remote.killBroker();
  await remote.start();
  for (let i = 0; i < 5; i++) await send('copied', 100);
  const rowsOf = async () => {
    const { rows } = await rig.database.pool.query(
      `SELECT count(DISTINCT data)::int AS different, count(*) AS rows, min(topic) AS topic,
         sum(DISTINCT ends) AS ends FROM kafka.inbox_events('news'),
         (SELECT sum(e) AS ends FROM (SELECT max(partition_offset) + 1 AS e FROM kafka.inbox_events('news')
          GROUP BY partition) p) q`,
    );
    return rows[0];
  };
  await eventually(async () => (await rowsOf()).different === sent);
  await rig.filled(server, 'news');
  const found = await rowsOf();
  assert.equal(found.topic, 'copied');
  assert.equal(BigInt(found.rows), BigInt(found.ends), 'a record is there twice, or was passed over');
  await stream.received(sent / 10);
  const ends = async () => (await admin.fetchTopicOffsets('copied')).map(({ high }) => BigInt(high)).sort();
  await eventually(async () => String((await committed('readers', 'copied')).sort()) === String(await ends()));
  await server.stop();

  // As a crash leaves them: rows that no stored position tells of. And nobody asks the group.
  await rig.database.pool.query('UPDATE kafka.inbox_positions SET next_offset = 1, told_seq = 3');
  await admin.deleteGroups(['readers']);
  // No key is remembered, so whatever is read again is an event again.
  await rig.database.pool.query(`DO $$ BEGIN
    EXECUTE (SELECT string_agg(format('TRUNCATE kafka.inbox_keys_%s;', keys_id), '') FROM kafka.inbox_key_tables);
  END $$`);
  await send('copied', 5);
  server = await rig.serve({ news: definition });
  await eventually(async () => (await rowsOf()).different === sent);
  await rig.filled(server, 'news');
  assert.equal(BigInt((await rowsOf()).rows), BigInt(found.rows) + 5n, 'the rows tell how far it was');
  await server.stop();
});

test('what somebody else has moved is not written over; ids are remembered for the window', async () => {
  await createTopic('moved');
  const server = await rig.serve({ moved: { topics: ['moved'], source: source() } });
  await send('moved', 10);
  await eventually(() => statusOf(server, 'moved').events === 10);
  await rig.filled(server, 'moved');
  const position = async () =>
    (
      await rig.database.pool.query(`SELECT next_offset AS next FROM kafka.inbox_positions JOIN kafka.inboxes USING (inbox_id)
        WHERE name = 'moved'`)
    ).rows[0].next;
  await eventually(async () => (await position()) === 10n);
  await rig.database.pool.query(
    `UPDATE kafka.inbox_positions p SET next_offset = 4, told_seq = 10 FROM kafka.inboxes i
     WHERE i.inbox_id = p.inbox_id AND i.name = 'moved'`,
  );
  await send('moved', 1);
  await eventually(async () => (await position()) === 11n);
  assert.equal((await rig.events('moved')).length, 11);
  await server.stop();
});

test('it begins where its group was committed there, as a mirror commits it', async () => {
  await createTopic('mirrored');
  await send('mirrored', 8);
  await admin.setOffsets({ groupId: 'deliver-later', topic: 'mirrored', partitions: [{ partition: 0, offset: '6' }] });
  const server = await rig.serve({ later: { topics: ['mirrored'], source: source() } });
  await eventually(() => statusOf(server, 'later').events === 2);
  await rig.filled(server, 'later');
  assert.deepEqual(
    (await rig.events('later')).map(({ event_id }) => event_id),
    ['mirrored-0-6', 'mirrored-0-7'],
  );
  await server.stop();
});

test('records that are gone leave a dead row; a topic made again is another', async () => {
  await createTopic('gone');
  await send('gone', 4);
  const cluster = new Cluster({ bootstrap: [{ host: '127.0.0.1', port: remote.port }], clientId: 'test' });
  await cluster.topic('gone');
  const definition = { topics: ['gone'], source: source() };
  let server = await rig.serve({ gone: definition });
  await eventually(() => statusOf(server, 'gone').events === 4);
  await rig.filled(server, 'gone');
  await server.stop();
  await send('gone', 3);
  const topics = [{ name: 'gone', partitions: [{ partitionIndex: 0, offset: 6n }] }];
  await cluster.request(cluster.leaderOf('gone', 0), DeleteRecords, { topics, timeoutMs: 10_000 });
  cluster.close();
  server = await rig.serve({ gone: definition });
  await eventually(() => statusOf(server, 'gone').events === 1);
  await rig.filled(server, 'gone');
  assert.equal((await rig.events('gone')).at(4)!.dead, 'offsets 4 to 6 are not in the log');
  await admin.deleteTopics({ topics: ['gone'] });
  await createTopic('gone');
  await send('gone', 2);
  await eventually(async () => (await rig.events('gone')).length === 8);
  assert.equal((await rig.events('gone')).at(-1)!.data, `${sent - 1}`);
  await server.stop();
});

test('a source that cannot be reached is told, and keeps nothing from stopping', async () => {
  const server = await rig.serve({ nowhere: { topics: ['t'], source: { bootstrap: '127.0.0.1:1' } } });
  await eventually(() => {
    const { state, reason } = statusOf(server, 'nowhere');
    return state === 'retrying' && /ECONNREFUSED/.test(reason ?? '');
  });
  await server.stop();
});
