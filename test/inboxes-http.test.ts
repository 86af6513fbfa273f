// Inboxes made over HTTP: filled, paused, kept over a restart, and dropped, in the process that fills them and in one that
// only serves them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type DeliverRig, openAccess, openDeliverRig, type Server, StreamClient } from './deliver-rig.ts';
import { eventually } from './open-log.ts';

let rig: DeliverRig;
before(async () => {
  rig = await openDeliverRig();
});
after(() => rig.remove());

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown> & Record<string, unknown>[];
}

async function call({ url }: Server, method: string, path: string, body?: unknown): Promise<Answer> {
  const headers: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' };
  const given = body === undefined ? {} : { body: JSON.stringify(body) };
  const response = await fetch(`${url}/api/inboxes${path}`, { method, headers, ...given });
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}

test('an inbox is made, paused over a restart, resumed and deleted over HTTP', async () => {
  const topic = await rig.createTopic('news');
  const send = (text: string): Promise<void> => rig.send(topic, [{ key: 'ada', value: text }]);
  const definition = { topics: ['news'] };
  let filling = await rig.serve({});
  const serving = await rig.serve({}, { fills: false });
  assert.deepEqual(await call(filling, 'GET', ''), { status: 200, body: [] });

  const made = await call(filling, 'POST', '', { name: 'news', definition });
  assert.equal(made.status, 201);
  assert.deepEqual([made.body.origin, made.body.definition], ['http', definition]);
  await send('1');
  // It looks for inboxes that are new to it once a second at most.
  await eventually(async () => (await fetch(`${serving.url}/v1/notifications/ada`)).ok);
  const stream = await StreamClient.open(`${serving.url}/v1/stream?subscriber=ada`);
  await stream.received(1);

  assert.equal((await call(filling, 'POST', '/news/pause')).body.state, 'paused');
  await send('2');
  await filling.stop();
  filling = await rig.serve({});
  assert.equal((await call(filling, 'GET', '/news')).body.state, 'paused', 'it is paused over a restart');
  const read = await fetch(`${filling.url}/v1/notifications/ada`);
  assert.equal(((await read.json()) as { notifications: unknown[] }).notifications.length, 1, 'and served');
  await call(filling, 'POST', '/news/resume');
  await stream.received(2);
  await call(filling, 'POST', '/news/restart');
  await send('3');
  await stream.received(3);
  assert.deepEqual(stream.data, ['1', '2', '3']);

  const others = await call(serving, 'POST', '/news/pause');
  assert.equal(others.status, 409);
  assert.match(String(others.body.error), /another process/);

  assert.deepEqual(await call(filling, 'DELETE', '/news'), { status: 200, body: {} });
  await stream.end();
  await eventually(async () => (await fetch(`${serving.url}/v1/stream?inbox=news&subscriber=ada`)).status === 404);
  assert.equal((await call(filling, 'GET', '/news')).status, 404);
  const { rows } = await rig.database.pool.query(
    `SELECT (SELECT count(*) FROM kafka.pipelines) + (SELECT count(*) FROM kafka.inboxes)
       + (SELECT count(*) FROM kafka.consumer_offsets) AS left`,
  );
  assert.equal(rows[0].left, 0n);
  await filling.stop();
  await serving.stop();
});

test('what cannot be done over HTTP is refused with the reason, and changes nothing', async () => {
  const server = await rig.serve({ mine: { topics: ['news'] } });
  const refused = async (method: string, path: string, body: unknown, status: number, message: RegExp) => {
    const answer = await call(server, method, path, body);
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    assert.match(String(answer.body.error), message);
  };
  await refused('POST', '', { name: 'mine', definition: { topics: ['x'] } }, 409, /there is an inbox mine/);
  await refused('POST', '', { name: 'b', definition: { topics: ['x'], colour: 1 } }, 400, /colour/);
  await refused('POST', '', { name: 'b', definition: { topics: ['x'], group: 'deliver-mine' } }, 409, /same group/);
  await refused('POST', '', { name: 'b' }, 400, /the body/);
  await refused('DELETE', '/mine', undefined, 409, /millrace.yaml/);
  await refused('POST', '/nobody/pause', undefined, 404, /no inbox nobody/);
  assert.equal((await call(server, 'GET', '')).body.length, 1);
  await server.stop();

  const open = await rig.serve({}, { access: { ...openAccess, host: '0.0.0.0' } });
  const answer = await call(open, 'POST', '', { name: 'b', definition: { topics: ['x'] } });
  assert.equal(answer.status, 400);
  assert.match(String(answer.body.error), /readable by everybody/);
  await open.stop();
});
