import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDeliverRig } from '../../test/deliver-rig.ts';
import { eventually } from '../../test/open-log.ts';
import { Appender } from './appender.ts';
import { readDefinition } from './definition.ts';
import { entryOf } from './event.ts';

const inbox = { topics: ['events'], subscriber: '$.user', id: '$.id', type: 'header.type', priority: '$.priority' };

test('a record becomes one event, with what its definition says, and what cannot be understood a dead row', async () => {
  const rig = await openDeliverRig();
  try {
    const topic = await rig.createTopic('events');
    await rig.send(topic, [
      { value: { user: 'ada', id: 'a', priority: 'HIGH', text: 'grüße' }, headers: { type: 'job' } },
      { value: { user: 'bob', id: 'b' } },
      { value: { user: 'ada', id: 'a', again: true } },
      { value: { user: 'bob', id: 'a', note: 'another subscriber’s' } },
      { value: null },
      { value: 'no JSON' },
      { value: { id: 'c' } },
      { value: { user: 'ada', id: 'd', priority: 'URGENT' } },
      { value: Buffer.from([0xff, 0xfe]) },
      { value: { user: 'ada\0', id: 'e' } },
      { value: { user: 7, id: 8, priority: 0 } },
    ]);
    const server = await rig.serve({ news: inbox });
    await rig.filled(server, 'news');
    const rows = await rig.events('news');
    assert.deepEqual(
      rows.map(({ seq, subscriber, event_id, dead }) => [seq, subscriber, event_id, dead]),
      [
        [1n, 'ada', 'a', null],
        [2n, 'bob', 'b', null],
        [3n, 'bob', 'a', null],
        [4n, null, 'events-0-5', 'the value is not JSON'],
        [5n, null, 'events-0-6', 'the record names no subscriber'],
        [6n, null, 'events-0-7', 'the priority is not LOW, MEDIUM, HIGH or a number from 0 to 9'],
        [7n, null, 'events-0-8', 'the value is not UTF-8'],
        [8n, null, 'events-0-9', '$.user holds a NUL character'],
        [9n, '7', '8', null],
      ],
    );
    const { rows: detail } = await rig.database.pool.query(
      `SELECT event_type, priority, data FROM kafka.inbox_events('news') WHERE subscriber IS NOT NULL`,
    );
    assert.deepEqual(
      detail.map(row => [row.event_type, row.priority]),
      [
        ['job', 7],
        [null, 4],
        [null, 4],
        [null, 0],
      ],
    );
    assert.equal(detail[0].data, '{"user":"ada","id":"a","priority":"HIGH","text":"grüße"}');
    const { events, duplicates, dead, records } = server.deliveries.status()[0]!;
    assert.deepEqual([records, events, duplicates, dead], [11, 4, 1, 5]);
  } finally {
    await rig.remove();
  }
});

test('begun again after its offsets were not stored, and after they were moved back, it has each event once', async () => {
  const rig = await openDeliverRig();
  const offsets = () =>
    rig.database.pool.query(
      `SELECT committed_offset AS next FROM kafka.consumer_offsets WHERE group_id = 'deliver-news'
       ORDER BY partition_id`,
    );
  const send = (from: number, count: number, partition: number) =>
    rig.send(
      topic,
      Array.from({ length: count }, (_, i) => ({ key: `u${i % 3}`, value: `${partition}:${from + i}` })),
      partition,
    );
  const topic = await rig.createTopic('events', 2);
  try {
    await send(0, 20, 0);
    await send(0, 10, 1);
    const definition = { topics: ['events'] };
    let server = await rig.serve({ news: definition });
    await rig.filled(server, 'news');
    await server.stop();
    assert.deepEqual(
      (await offsets()).rows.map(row => row.next),
      [20n, 10n],
    );

    // As a crash leaves it: rows that no stored offset tells of.
    await rig.database.pool.query(
      `UPDATE kafka.consumer_offsets SET committed_offset = 5, metadata = convert_to('seq 5', 'UTF8')
       WHERE group_id = 'deliver-news' AND partition_id = 0`,
    );
    await rig.database.pool.query(
      `UPDATE kafka.consumer_offsets SET committed_offset = 0, metadata = convert_to('seq 5', 'UTF8')
       WHERE group_id = 'deliver-news' AND partition_id = 1`,
    );
    await send(20, 5, 0);
    server = await rig.serve({ news: definition });
    await rig.filled(server, 'news');
    let status = server.deliveries.status()[0]!;
    assert.deepEqual([status.records, status.duplicates], [5, 0], 'the rows tell how far it was');

    // As kafka-consumer-groups does it, while it runs.
    await rig.database.pool.query(
      `UPDATE kafka.consumer_offsets SET committed_offset = 0, metadata = '' WHERE group_id = 'deliver-news'`,
    );
    await send(10, 5, 1);
    await eventually(() => server.deliveries.status()[0]!.duplicates >= 35);
    await rig.filled(server, 'news');
    status = server.deliveries.status()[0]!;
    assert.equal(status.events, 10);
    const data = (await rig.events('news')).map(row => row.data);
    assert.equal(data.length, 40);
    assert.equal(new Set(data).size, 40);
    await server.stop();
    assert.deepEqual(
      (await offsets()).rows.map(row => row.next),
      [25n, 15n],
    );
  } finally {
    await rig.remove();
  }
});

test('a topic that is made again under its name has events of its own', async () => {
  const rig = await openDeliverRig();
  try {
    const server = await rig.serve({ news: { topics: ['events'] } });
    for (const text of ['of the first', 'of the second']) {
      const topic = await rig.createTopic('events');
      await rig.send(topic, [{ key: 'ada', value: text }]);
      await eventually(async () => (await rig.events('news')).at(-1)?.data === text);
      await rig.topics.delete(topic);
    }
    await server.stop();
  } finally {
    await rig.remove();
  }
});

test('a writer whose term is over changes nothing', async () => {
  const rig = await openDeliverRig();
  try {
    const topic = await rig.createTopic('events');
    const definition = readDefinition('news', { topics: ['events'] }, undefined);
    let epoch = rig.log.epoch;
    const { appender } = await Appender.open(rig.database.pool, definition, () => ({ brokerId: 1, epoch }));
    await appender.load();
    const record = { offset: 0n, timestamp: 0n, key: Buffer.from('ada'), value: Buffer.from('hello'), headers: [] };
    const entry = entryOf(definition, record, { topic: 'events', topicId: topic.id, partition: 0 })!;
    epoch--;
    await assert.rejects(appender.append([entry], []), { code: 'KF001' });
    await assert.rejects(appender.turn(new Date(Date.now() + 86_400_000 * 30)), { code: 'KF001' });
    assert.deepEqual(await rig.events('news'), []);
    epoch++;
    assert.equal((await appender.append([entry], [])).fresh.length, 1);
    assert.equal((await appender.append([entry], [])).fresh.length, 0);
  } finally {
    await rig.remove();
  }
});

test('parts and key tables take turns, and are dropped whole when their time is over', async () => {
  const rig = await openDeliverRig();
  try {
    const topic = await rig.createTopic('events');
    const definition = readDefinition('news', { topics: ['events'], retention: '1h', window: '10m' }, undefined);
    const { appender } = await Appender.open(rig.database.pool, definition, () => ({
      brokerId: 1,
      epoch: rig.log.epoch,
    }));
    await appender.load();
    const append = async (offset: bigint): Promise<number> => {
      const record = { offset, timestamp: 0n, key: Buffer.from('ada'), value: Buffer.from('hello'), headers: [] };
      const entry = entryOf(definition, record, { topic: 'events', topicId: topic.id, partition: 0 })!;
      return (await appender.append([entry], [])).fresh.length;
    };
    /** As if everything had been made so much earlier. */
    const age = (minutes: number) =>
      rig.database.pool.query(
        `WITH parts AS (UPDATE kafka.inbox_parts SET opened_at = opened_at - $1 * interval '1 minute')
         UPDATE kafka.inbox_key_tables SET opened_at = opened_at - $1 * interval '1 minute'`,
        [minutes],
      );
    const seqs = async () => (await rig.events('news')).map(row => row.seq);
    await append(1n);
    for (const offset of [2n, 3n]) {
      await age(11);
      await appender.load();
      await appender.turn();
      await append(offset);
    }
    assert.equal(await append(1n), 0, 'known for the window at least');
    const read = await appender.inbox.of('ada', 0n, 10);
    assert.deepEqual([read.firstSeq, read.events.map(({ seq }) => seq)], [1n, [1n, 2n, 3n]]);

    await age(55); // the oldest part ended 66 minutes ago, the next is still written to until 55 minutes ago
    assert.equal(await appender.dropPast(), 3, 'one part, two key tables');
    assert.deepEqual(await seqs(), [2n, 3n]);
    assert.deepEqual((await appender.inbox.of('ada', 0n, 10)).firstSeq, 2n);
    assert.equal(await append(1n), 1, 'forgotten with its table');
    const { rows } = await rig.database.pool.query(
      `SELECT count(*) AS tables FROM pg_class WHERE relkind = 'r' AND relname ~ '^inbox_(part|keys)_'`,
    );
    assert.equal(rows[0].tables, 2n * 2n + 1n);

    await rig.database.pool.query(`SELECT kafka.inbox_drop('news')`);
    const { rows: left } = await rig.database.pool.query(
      `SELECT (SELECT count(*) FROM pg_class WHERE relname ~ '^inbox_(part|keys)_\\d') AS tables,
              (SELECT count(*) FROM kafka.inbox_parts) AS parts`,
    );
    assert.deepEqual([left[0].tables, left[0].parts], [0n, 0n]);
  } finally {
    await rig.remove();
  }
});

test('an old snapshot finds no dead rows in an inbox', async () => {
  const rig = await openDeliverRig();
  const old = await rig.database.pool.connect();
  try {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news: { topics: ['events'] } });
    await old.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await old.query('SELECT 1');
    for (let i = 0; i < 20; i++) {
      await rig.send(topic, [{ key: 'ada', value: `${i}` }]);
      await rig.filled(server, 'news');
    }
    await rig.database.pool.query('SELECT pg_stat_force_next_flush()').catch(() => {});
    const { rows } = await rig.database.pool.query(
      `SELECT coalesce(sum(n_tup_upd + n_tup_del), 0) AS changed FROM pg_stat_user_tables WHERE relname ~ '^inbox_(part|keys)_'`,
    );
    assert.equal(Number(rows[0].changed), 0);
    const { rows: offsets } = await rig.database.pool.query(`SELECT ctid::text FROM kafka.consumer_offsets`);
    const [, version] = /,(\d+)\)/.exec(offsets[0].ctid)!;
    assert.ok(Number(version) < 20, 'offsets are not written with each transaction');
  } finally {
    await old.query('ROLLBACK');
    old.release();
    await rig.remove();
  }
});

test('a definition that is wrong is told with file, key and what was expected', () => {
  const refused = (value: unknown, sentence: RegExp) =>
    assert.throws(
      () => readDefinition('news', value, '/etc/millrace.yaml'),
      (error: Error & { sentence: string }) => sentence.test(error.sentence),
    );
  refused(
    { topics: ['a'], subscribers: 'key' },
    /deliver\.news\.subscribers in \/etc\/millrace\.yaml .*did you mean subscriber/,
  );
  refused(
    { topics: ['a'], id: 'value.id' },
    /deliver\.news\.id in \/etc\/millrace\.yaml is "value\.id"; give key, value, header/,
  );
  refused({ topics: ['a'], retention: '7 weeks' }, /deliver\.news\.retention .* is "7 weeks"; give a whole number/);
  refused({ topics: [] }, /deliver\.news\.topics .*at least 1/);
  refused({}, /deliver\.news\.topics .* is missing/);
});
