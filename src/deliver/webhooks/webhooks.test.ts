// Webhooks of one process and of several, to receivers that fail in every way; each waits for what it needs to see.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DeliverRig, openDeliverRig, type Server, secrets } from '../../../test/deliver-rig.ts';
import { eventually } from '../../../test/open-log.ts';
import { type Received, Receiver, verifies } from '../../../test/webhook-receiver.ts';
import type { WebhookStatus } from './dispatcher.ts';
import { keyOf } from './signature.ts';

type Definition = Readonly<Record<string, unknown>>;

const webhook = (more: Definition = {}) => ({ secrets: ['env:WEBHOOK_SECRET'], retries: ['20ms', '20ms'], ...more });
const inbox = (more: Definition = {}, rest: Definition = {}) => ({
  news: { topics: ['events'], channel: 'webhook', priority: 'header.priority', webhook: webhook(more), ...rest },
});
const statusOf = ({ deliveries }: Server): WebhookStatus | undefined => deliveries.webhooks()[0];
const until = (server: Server, condition: (status: WebhookStatus) => boolean) =>
  eventually(() => {
    const status = statusOf(server);
    return status !== undefined && condition(status);
  });
const numbers = (count: number, key = 'ada') => Array.from({ length: count }, (_, i) => ({ key, value: `${i}` }));

async function withReceiver(work: (rig: DeliverRig, receiver: Receiver) => Promise<void>): Promise<void> {
  const rig = await openDeliverRig();
  const receiver = await Receiver.open();
  try {
    await work(rig, receiver);
  } finally {
    await rig.remove();
    await receiver.close();
  }
}

test('each event is sent once, signed, with what it is known by; what is settled does not come again', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve(
      inbox({ url: receiver.url, secrets: ['env:WEBHOOK_SECRET_NEW', 'env:WEBHOOK_SECRET', 'env:WEBHOOK_KEY'] }),
    );
    await rig.send(topic, [
      ...['ada', 'bob', 'eve'].map(key => ({ key, value: { for: key }, headers: { priority: 'HIGH' } })),
      { key: 'müller', value: 'text', headers: {} },
      { key: null, value: 'for nobody' },
    ]);
    await until(server, ({ delivered }) => delivered === 4);
    assert.deepEqual(receiver.received.map(({ id, headers }) => [id, headers['millrace-subscriber']]).sort(), [
      ['1-1', 'ada'],
      ['1-2', 'bob'],
      ['1-3', 'eve'],
      ['1-4', 'm%C3%BCller'],
    ]);
    for (const received of receiver.received) {
      assert.ok(verifies(received, secrets.WEBHOOK_SECRET) && verifies(received, secrets.WEBHOOK_SECRET_NEW));
      assert.equal(received.headers['millrace-attempt'], '1');
      assert.match(String(received.headers['webhook-signature']), /^v1,[^ ]+ v1,[^ ]+ v1a,[^ ]{86}==$/);
    }
    const shown = await (await fetch(`${server.url}/api/webhooks`)).text();
    assert.ok(shown.includes(keyOf(secrets.WEBHOOK_KEY)!.publicKey!) && !shown.includes(secrets.WEBHOOK_KEY));
    const stream = await fetch(`${server.url}/v1/stream?inbox=news&subscriber=ada`);
    assert.equal(stream.status, 404, 'its channel is the webhook');
    await server.stop();

    const next = await rig.serve(inbox({ url: receiver.url }));
    await rig.send(topic, [{ key: 'ada', value: 'another' }]);
    await until(next, ({ delivered }) => delivered === 1);
    assert.equal(receiver.received.length, 5);
  });
});

test('many events to many subscribers, while a snapshot is pinned: all of them, and no row of the inbox is changed', async () => {
  await withReceiver(async (rig, receiver) => {
    const old = await rig.database.pool.connect();
    await old.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await old.query('SELECT 1');
    const topic = await rig.createTopic('events');
    const server = await rig.serve(inbox({ url: receiver.url, concurrency: 32 }));
    for (let batch = 0; batch < 3; batch++) {
      await rig.send(
        topic,
        Array.from({ length: 200 }, (_, i) => ({ key: `user-${i % 97}`, value: `${batch * 200 + i}` })),
      );
    }
    await until(server, ({ delivered }) => delivered === 600);
    assert.equal(new Set(receiver.bodies).size, 600);
    assert.equal(receiver.received.length, 600);
    await old.query('ROLLBACK');
    old.release();
    await rig.database.pool.query('SELECT pg_stat_force_next_flush()').catch(() => {});
    const { rows } = await rig.database.pool.query(
      `SELECT coalesce(sum(n_tup_upd + n_tup_del), 0) AS changed FROM pg_stat_user_tables WHERE relname ~ '^inbox_part_'`,
    );
    assert.equal(Number(rows[0].changed), 0);
    const { rows: left } = await rig.database.pool.query(
      'SELECT (SELECT count(*) FROM kafka.webhook_retries) + (SELECT count(*) FROM kafka.webhook_holds) AS rows',
    );
    assert.equal(left[0].rows, 0n);
  });
});

test('a failed event is tried again under its id; after its last attempt it is dead, in its topic, and can be redriven', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    let poisonous = true;
    receiver.answer = ({ body }) => (body === 'poison' && poisonous ? 500 : undefined);
    const server = await rig.serve(inbox({ url: receiver.url, deadLetterTopic: 'dead' }));
    await rig.send(topic, [{ key: 'ada', value: 'poison', headers: { trace: 'x' } }, ...numbers(5)]);
    await until(server, ({ delivered, dead }) => delivered === 5 && dead === 1);
    const attempts = receiver.received.filter(({ body }) => body === 'poison');
    assert.deepEqual(
      attempts.map(({ id, headers }) => [id, headers['millrace-attempt']]),
      [
        ['1-1', '1'],
        ['1-1', '2'],
        ['1-1', '3'],
      ],
    );
    const letters = async () => {
      const { rows } = await rig.database.pool.query(
        `SELECT convert_from(key, 'UTF8') AS key, convert_from(value, 'UTF8') AS value, headers::text FROM kafka.messages WHERE topic = 'dead'`,
      );
      return rows;
    };
    await eventually(() => rig.topics.get('dead') !== undefined);
    await eventually(async () => (await letters()).length === 1);
    const [letter] = await letters();
    assert.deepEqual([letter.key, letter.value], ['ada', 'poison']);
    const listed = async () =>
      (await (await fetch(`${server.url}/api/webhooks/news/dead-letters`)).json()) as Record<string, unknown>[];
    await eventually(async () => (await listed())[0]?.inTopic === true);
    const [dead] = await listed();
    assert.deepEqual([dead!.id, dead!.attempts, dead!.code, dead!.reason], ['1-1', 3, 'HTTP_500', 'answered 500']);

    const redrive = async (body: unknown) => {
      const headers = { 'content-type': 'application/json' };
      const answer = await fetch(`${server.url}/api/webhooks/news/redrive`, {
        ...{ method: 'POST', headers, body: JSON.stringify(body) },
      });
      return answer.json();
    };
    assert.deepEqual(await redrive({ ids: ['1-2', '7-1'] }), { redriven: 0 });
    assert.deepEqual(await redrive({ ids: ['1-1'] }), { redriven: 1 });
    await until(server, status => status.dead === 2);
    await eventually(async () => (await letters()).length === 2);
    poisonous = false;
    const { rows } = await rig.database.pool.query(`SELECT kafka.webhook_redrive('news') AS redriven`);
    assert.equal(rows[0].redriven, 1n);
    await until(server, ({ delivered }) => delivered === 6);
    assert.deepEqual(await listed(), []);
    assert.equal(receiver.received.filter(({ body }) => body === 'poison').length, 7);
  });
});

test('in order: a subscriber’s next event waits for the one before, whatever fails; others do not', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    const failures = new Map<string, number>();
    receiver.answer = ({ id, body }) => {
      if (!/^ada-\d*[05]$/.test(body)) return 200;
      const failed = failures.get(id) ?? 0;
      failures.set(id, failed + 1);
      return failed < 2 ? 503 : 200;
    };
    const server = await rig.serve(inbox({ url: receiver.url, order: 'subscriber' }));
    const names = ['ada', 'bob', 'eve'];
    const priorities = ['LOW', 'HIGH', 'MEDIUM'];
    await rig.send(
      topic,
      Array.from({ length: 30 }, (_, i) =>
        names.map(key => ({ key, value: `${key}-${i}`, headers: { priority: priorities[i % 3]! } })),
      ).flat(),
    );
    await until(server, ({ delivered }) => delivered === 90);
    for (const name of names) {
      const expected = Array.from({ length: 30 }, (_, i) => `${name}-${i}`).flatMap(body =>
        name === 'ada' && /[05]$/.test(body) ? [body, body, body] : [body],
      );
      assert.deepEqual(
        receiver.bodies.filter(body => body.startsWith(name)),
        expected,
      );
    }
    await until(server, ({ held }) => held === 0);
  });
});

test('429 and Retry-After: the endpoint is left alone, and no attempt is counted', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    let refusals = 0;
    receiver.answer = () => (refusals++ < 5 ? { status: 429, headers: { 'retry-after': '0' } } : 200);
    const server = await rig.serve(inbox({ url: receiver.url, retries: [] }));
    await rig.send(topic, numbers(3));
    await until(server, ({ delivered }) => delivered === 3);
    const status = statusOf(server)!;
    assert.deepEqual([status.throttled, status.failed, status.dead], [5, 0, 0]);
    assert.ok(receiver.received.every(({ headers }) => headers['millrace-attempt'] === '1'));
  });
});

test('410 disables the endpoint; what it would have got is sent once it is enabled again', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve(inbox());
    const put = (path: string, body?: unknown) =>
      fetch(`${server.url}/api/webhooks/news/${path}`, {
        method: body === undefined ? 'POST' : 'PUT',
        ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
      });
    const own = `whsec_${Buffer.alloc(32, 9).toString('base64')}`;
    assert.equal((await put('endpoints/ada', { url: `${receiver.url}/ada`, secrets: [own] })).status, 200);
    assert.equal((await put('endpoints/bob', { url: `${receiver.url}/bob` })).status, 200);
    assert.equal((await put('endpoints/eve', { url: 'ftp://example.org/' })).status, 400);
    assert.equal((await put('endpoints/eve', { url: receiver.url, secrets: ['short'] })).status, 400);
    let gone = true;
    receiver.answer = ({ path }) => (gone && path.endsWith('/ada') ? 410 : 200);
    await rig.send(topic, [...numbers(3), ...numbers(3, 'bob'), ...numbers(2, 'nobody')]);
    const endpoints = async () =>
      (await (await fetch(`${server.url}/api/webhooks/news/endpoints`)).json()) as Record<string, unknown>[];
    await until(server, ({ delivered, unaddressed }) => delivered === 3 && unaddressed === 2);
    await eventually(async () => (await endpoints())[0]!.enabled === false);
    assert.deepEqual(await endpoints(), [
      { subscriber: 'ada', url: `${receiver.url}/ada`, secrets: 1, enabled: false, reason: 'answered 410' },
      { subscriber: 'bob', url: `${receiver.url}/bob`, secrets: 0, enabled: true, reason: null },
    ]);
    await rig.send(topic, [{ key: 'ada', value: 'later' }, ...numbers(3, 'bob')]);
    await until(server, ({ delivered }) => delivered === 6);
    const before = receiver.received.length;
    gone = false;
    assert.equal((await put('endpoints/ada/enable')).status, 204);
    await until(server, ({ delivered }) => delivered === 10);
    const since = receiver.received.slice(before);
    assert.deepEqual(since.map(({ body }) => body).sort(), ['0', '1', '2', 'later']);
    assert.ok(since.every(received => verifies(received, own) && !verifies(received, secrets.WEBHOOK_SECRET)));
    assert.equal((await put('endpoints/nobody/enable')).status, 404);
    assert.equal((await fetch(`${server.url}/api/webhooks/other/endpoints`)).status, 404);
    const page = await fetch(`${server.url}/api/webhooks/news/endpoints`, { headers: { origin: 'http://elsewhere' } });
    assert.equal(page.status, 403);
  });
});

test('a circuit breaker keeps a dead endpoint from being asked; others go on, and nothing is lost', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    const breaker = { failures: 3, pause: '50ms' };
    const server = await rig.serve(inbox({ retries: Array(50).fill('1ms'), breaker, concurrency: 2 }));
    for (const name of ['ada', 'bob']) {
      await rig.database.pool.query(`SELECT kafka.webhook_endpoint('news', $1, $2)`, [name, `${receiver.url}/${name}`]);
    }
    let broken = true;
    receiver.answer = ({ path }) => (broken && path.endsWith('/ada') ? 500 : 200);
    await rig.send(topic, [...numbers(100), ...numbers(100, 'bob')]);
    await until(server, ({ delivered, open, held }) => delivered === 100 && open === 1 && held >= 1);
    const asked = () => receiver.received.filter(({ path }) => path.endsWith('/ada')).length;
    const before = asked();
    await receiver.until(() => asked() >= before + 2); // one at a time, ever more seldom
    assert.ok(asked() < 30, `${asked()} requests to an endpoint that does not answer`);
    broken = false;
    await until(server, ({ delivered, open, held }) => delivered === 200 && open === 0 && held === 0);
    const took = receiver.received.slice(before).filter(({ path }) => path.endsWith('/ada'));
    assert.equal(new Set(took.map(({ id }) => id)).size, 100);
  });
});

test('HIGH goes before what waits, and LOW still gets its share', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    let open!: () => void;
    const gate = new Promise<void>(resolve => {
      open = resolve;
    });
    receiver.answer = async () => {
      await gate;
      return 200;
    };
    const server = await rig.serve(inbox({ url: receiver.url }), {
      webhooks: { workers: 1, leaseMs: 60_000, pollMs: 60_000, allow: ['127.0.0.1'] },
    });
    const of = (priority: string, count: number) =>
      Array.from({ length: count }, (_, i) => ({ key: `user-${i}`, value: priority, headers: { priority } }));
    await rig.send(topic, of('LOW', 60));
    await until(server, ({ active, queued }) => active === 1 && queued === 59);
    await rig.send(topic, of('HIGH', 60));
    await until(server, ({ queued }) => queued === 119);
    open();
    await until(server, ({ delivered }) => delivered === 120);
    const first = receiver.bodies.slice(1, 51);
    const high = first.filter(body => body === 'HIGH').length;
    assert.equal(high, 45, 'nine of ten');
  });
});

test('private addresses are refused unless they are allowed, and the reason is told', async () => {
  await withReceiver(async (rig, receiver) => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve(inbox({ url: receiver.url, retries: [] }), {
      webhooks: { workers: 8, leaseMs: 60_000, pollMs: 60_000, allow: [] },
    });
    await rig.send(topic, numbers(1));
    await until(server, ({ dead }) => dead === 1);
    const { rows } = await rig.database.pool.query('SELECT code, reason FROM kafka.webhook_dead_letters');
    assert.equal(rows[0].code, 'ADDRESS_REFUSED');
    assert.match(rows[0].reason, /127\.0\.0\.1/);
    assert.deepEqual(receiver.received, []);
  });
});

test('a common URL that is down holds up those alone who have no endpoint of their own, in its inbox and no other', async () => {
  await withReceiver(async (rig, receiver) => {
    const [topic, elsewhere] = [await rig.createTopic('events'), await rig.createTopic('elsewhere')];
    const settings = { url: `${receiver.url}/down`, breaker: { failures: 2, pause: '1h' } };
    const at = (path: string) => receiver.received.filter(request => request.path === `/hook/${path}`);
    const isOfNews = ({ headers }: Received): boolean => headers['millrace-topic'] === 'events';
    receiver.answer = request => (isOfNews(request) && request.path === '/hook/down' ? 503 : 200);
    const server = await rig.serve({
      ...inbox(settings),
      other: { topics: ['elsewhere'], channel: 'webhook', webhook: webhook({ url: settings.url }) },
    });
    const put = async (path: string, url: string): Promise<void> => {
      const answer = await fetch(`${server.url}/api/webhooks/news/${path}`, {
        method: 'PUT',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ url }),
      });
      assert.equal(answer.status, 200);
    };
    await put('endpoints/ada', `${receiver.url}/ada`);
    const of = (name: string) => server.deliveries.webhooks().find(status => status.name === name)!;
    // More than are in memory at once, of subscribers in all lanes.
    const waiting = Array.from({ length: 600 }, (_, i) => ({ key: `u${i}`, value: `${i}` }));
    await rig.send(topic, waiting);
    await eventually(() => of('news')?.open === 1);
    for (let sent = 0; sent < 60; sent += 20) {
      await rig.send(topic, numbers(20));
      await rig.send(elsewhere, numbers(20, 'bob'));
      await eventually(() => of('news').delivered === sent + 20 && of('other').delivered === sent + 20);
    }
    assert.equal(at('ada').length, 60);
    assert.deepEqual([of('news').open, of('other').open], [1, 0]);
    const asked = at('down').filter(isOfNews).length;
    assert.ok(asked <= 16 + 2, `${asked} requests: more than were under way when the breaker opened`);
    // Somebody mends it, and says so.
    await put('endpoint', `${receiver.url}/mended`);
    await eventually(() => of('news').delivered === 660);
    assert.equal(new Set(at('mended').map(({ body }) => body)).size, 600);
    assert.deepEqual([of('news').open, of('news').dead], [0, 0]);
  });
});
