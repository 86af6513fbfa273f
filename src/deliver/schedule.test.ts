// Events that wait for their time.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type DeliverRig, openDeliverRig, StreamClient } from '../../test/deliver-rig.ts';
import { eventually } from '../../test/open-log.ts';
import { Appender } from './appender.ts';
import { readDefinition } from './definition.ts';
import { type Entry, entryOf } from './event.ts';

let rig: DeliverRig;
before(async () => {
  rig = await openDeliverRig();
});
after(() => rig.remove());

const hour = 3_600_000;

test('what waits comes when it is due, in the order of its times, once, and over a restart', async () => {
  const definition = readDefinition('later', { topics: ['later'], id: 'value', schedule: 'header.at' }, undefined);
  let { epoch } = rig.log;
  const open = async (): Promise<Appender> => {
    const { appender } = await Appender.open(rig.database.pool, definition, () => ({ brokerId: 1, epoch }));
    await appender.load();
    return appender;
  };
  const topic = await rig.createTopic('later');
  const start = Date.now();
  let offset = 0n;
  const entry = (text: string, hours: number | undefined): Entry => {
    const at = hours === undefined ? [] : [{ key: 'at', value: Buffer.from(`${start + hours * hour}`) }];
    const fixed = { offset: offset++, timestamp: BigInt(start), key: Buffer.from('ada') };
    const record = { ...fixed, value: Buffer.from(text), headers: at };
    return entryOf(definition, record, { topic: 'later', topicId: topic.id, partition: 0 })!;
  };
  const data = async (): Promise<string[]> => (await rig.events('later')).map(row => row.data);
  let appender = await open();
  assert.equal(appender.untilDue(), Number.POSITIVE_INFINITY);
  const given = [
    entry('c', 3),
    entry('a', 1),
    entry('now', undefined),
    entry('past', -5),
    entry('b', 2),
    entry('a', 2),
  ];
  const { fresh, waiting } = await appender.append(given, []);
  assert.deepEqual([fresh.map(entry => entry.data), waiting], [['now', 'past'], 4]);
  assert.equal(appender.untilDue(start), hour);
  assert.deepEqual(await appender.release(10, start + hour - 1), { taken: 0, fresh: 0 });
  assert.deepEqual(await appender.release(10, start + hour), { taken: 1, fresh: 1 });
  assert.equal(appender.untilDue(start + hour), hour);

  appender = await open();
  assert.equal(appender.untilDue(start), 2 * hour, 'it is known again');
  epoch--;
  await assert.rejects(appender.release(10, start + 9 * hour), { code: 'KF001' }, 'a writer whose term is over');
  epoch++;
  // One at a time; the second `a` is a duplicate.
  assert.deepEqual(await appender.release(1, start + 9 * hour), { taken: 1, fresh: 1 });
  assert.equal(appender.untilDue(start + 9 * hour), 0, 'there is more');
  assert.deepEqual(await appender.release(1, start + 9 * hour), { taken: 1, fresh: 0 });
  assert.deepEqual(await appender.release(5, start + 9 * hour), { taken: 1, fresh: 1 });
  assert.equal(appender.untilDue(), Number.POSITIVE_INFINITY);
  assert.deepEqual(await data(), ['now', 'past', 'a', 'b', 'c']);

  // Both under one id, and taken together.
  await appender.append([entry('e', 9.2), entry('d', 9.1)], []);
  await appender.append([entry('e', 9.1)], []);
  assert.deepEqual(await appender.release(10, start + 10 * hour), { taken: 3, fresh: 2 });
  assert.deepEqual((await data()).slice(-2), ['d', 'e']);

  // The clock is set back behind what has been released.
  const late = await appender.append([entry('f', 4)], []);
  assert.equal(late.waiting, 0, 'it is not put where nobody looks again');
});

test('a stream gets a scheduled event when it is due, though Millrace was restarted meanwhile', async () => {
  const topic = await rig.createTopic('reminders');
  const inboxes = { reminders: { topics: ['reminders'], schedule: '$.at', data: '$.text' } };
  let server = await rig.serve(inboxes);
  const planned = Date.now() + hour;
  await rig.send(topic, [
    { key: 'ada', value: { at: planned, text: 'second' } },
    { key: 'ada', value: { at: new Date(planned - 1).toISOString(), text: 'first' } },
    { key: 'ada', value: { text: 'at once' } },
    { key: 'ada', value: { at: 'tomorrow', text: 'never' } },
  ]);
  await eventually(async () => {
    const { rows } = await rig.database.pool.query('SELECT subscriber FROM kafka.inbox_waiting');
    return rows.length === 2;
  });
  await server.stop();
  // Nothing here depends on how long all that took.
  const due = Date.now() + 500;
  await rig.database.pool.query(`UPDATE kafka.inbox_waiting SET due_at = due_at - $1 * interval '1 ms'`, [
    planned - due,
  ]);
  server = await rig.serve(inboxes);
  const stream = await StreamClient.open(`${server.url}/v1/stream?subscriber=ada`);
  await stream.received(3);
  assert.ok(Date.now() >= due);
  assert.deepEqual(stream.data, ['at once', 'first', 'second']);
  // Counted once they are committed, which is when a stream may have them already.
  await eventually(() => server.deliveries.status()[0]!.events >= 2);
  const { events, records } = server.deliveries.status()[0]!;
  assert.deepEqual({ events, records }, { events: 2, records: 0 }, 'what was read before was not read again');
  const dead = (await rig.events('reminders')).flatMap(row => row.dead ?? []);
  assert.deepEqual(dead, ['the schedule is neither a time as ISO 8601 has it nor a number']);
  stream.close();
  await server.stop();
  await rig.database.pool.query(`SELECT kafka.inbox_drop('reminders')`);
});
