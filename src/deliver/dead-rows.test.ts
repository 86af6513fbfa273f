import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDeliverRig } from '../../test/deliver-rig.ts';
import { eventually } from '../../test/open-log.ts';
import { headersOf, readTopic, type StoredRecord } from '../../test/read-topic.ts';
import { buildBatch, type NewRecord } from '../protocol/records.ts';

const bytes = (text: string): Buffer => Buffer.from(text);
const event = (user: string): NewRecord => ({
  timestamp: 1n,
  key: null,
  value: bytes(JSON.stringify({ user })),
  headers: [],
});

test('records that become no event are once in the dead letter topic, as they were, with the reason', async () => {
  const rig = await openDeliverRig();
  const letters = (): Promise<StoredRecord[]> => readTopic(rig.database.pool, 'news.dead-letter');
  const topic = await rig.createTopic('events');
  const send = async (records: readonly NewRecord[]): Promise<void> => {
    await rig.log.append(topic, rig.log.partition(topic, 0)!, buildBatch({ records }), -1, false).result;
  };
  const bad: NewRecord[] = [
    {
      timestamp: 7n,
      key: Buffer.from([0xff, 0]),
      value: bytes('no JSON'),
      headers: [
        { key: 'h', value: null },
        { key: 'h', value: Buffer.from([0xfe]) },
        { key: 'h', value: bytes('') },
      ],
    },
    { timestamp: 8n, key: null, value: bytes('{"text": "for nobody"}'), headers: [] },
  ];
  try {
    // Of everything: what has been given up must not come to the inbox again.
    const definition = { topics: ['*'], subscriber: '$.user' };
    let server = await rig.serve({ news: definition });
    await send([event('ada'), bad[0]!, event('bob'), bad[1]!]);
    await eventually(async () => (await letters()).length >= 2);
    await rig.filled(server, 'news');
    const found = await letters();
    for (const [i, { timestamp, key, value, headers }] of found.entries()) {
      const { headers: before = [], ...wanted } = bad[i]!;
      assert.deepEqual({ timestamp, key, value }, wanted);
      assert.deepEqual(
        headers.slice(0, before.length).map(header => ({ key: header.key, value: header.value })),
        before,
      );
      const { '__connect.errors.exception.message': message, ...reasons } = headersOf({ ...found[i]!, headers });
      assert.equal(message, i === 0 ? 'the value is not JSON' : 'the record names no subscriber');
      assert.equal(reasons['__connect.errors.topic'], 'events');
      assert.equal(reasons['__connect.errors.offset'], i === 0 ? '1' : '3');
      assert.equal(reasons['__connect.errors.connector.name'], 'news');
      assert.equal(reasons['millrace.error.code'], 'BAD_EVENT');
    }
    let status = server.deliveries.describe('news');
    assert.deepEqual([status.events, status.dead, status.deadLetters, status.records], [2, 2, 2, 4]);
    await server.stop();

    // Read again, as after somebody has moved the group's offsets back: known, and so given up once.
    await rig.database.pool.query(`UPDATE kafka.consumer_offsets SET committed_offset = 0, metadata = ''`);
    await send([bad[1]!]);
    server = await rig.serve({ news: definition });
    await eventually(async () => (await letters()).length >= 3);
    await rig.filled(server, 'news');
    status = server.deliveries.describe('news');
    assert.deepEqual([status.duplicates, status.dead, status.deadLetters], [4, 1, 1]);
    await server.stop();
    assert.equal((await letters()).length, 3);
  } finally {
    await rig.remove();
  }
});

test('more than go at once, and such as fill an append by themselves, come in their order', async () => {
  const rig = await openDeliverRig();
  try {
    const topic = await rig.createTopic('events');
    const large = 'x'.repeat(700_000);
    const values = Array.from({ length: 230 }, (_, i) => `${i}${i % 100 === 50 ? large : ''}`);
    for (let at = 0; at < values.length; at += 40) {
      await rig.send(
        topic,
        values.slice(at, at + 40).map(value => ({ value })),
      );
    }
    const server = await rig.serve({ news: { topics: ['events'], deadLetterTopic: 'given-up' } });
    await eventually(() => server.deliveries.describe('news').deadLetters >= values.length);
    const found = await readTopic(rig.database.pool, 'given-up');
    assert.deepEqual(
      found.map(({ value }) => value!.length),
      values.map(value => value.length),
    );
    assert.ok(found.every(({ value }, i) => value!.toString().startsWith(`${i}`)));
    await server.stop();
  } finally {
    await rig.remove();
  }
});
