import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DeliverRig, limits, openDeliverRig, type SentRecord, StreamClient } from '../../test/deliver-rig.ts';
import { eventually } from '../../test/open-log.ts';

const news = { topics: ['events'] };
const numbered = (from: number, to: number, key = 'ada'): SentRecord[] =>
  Array.from({ length: to - from }, (_, i) => ({ key, value: `${from + i}` }));
const texts = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => `${from + i}`);

async function withRig(work: (rig: DeliverRig) => Promise<void>): Promise<void> {
  const rig = await openDeliverRig();
  try {
    await work(rig);
  } finally {
    await rig.remove();
  }
}

test('a subscriber gets what is pending and then what comes, and nobody else’s', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news: { ...news, type: 'header.type' } });
    await rig.send(topic, [...numbered(0, 3), ...numbered(100, 103, 'bob')]);
    await rig.filled(server, 'news');
    const ada = await StreamClient.open(`${server.url}/v1/stream?subscriber=ada`);
    assert.equal(ada.headers['content-type'], 'text/event-stream; charset=utf-8');
    await ada.received(3);
    await rig.send(topic, [
      { key: 'ada', value: 'two\nlines', headers: { type: 'job.done' } },
      ...numbered(103, 104, 'bob'),
    ]);
    await ada.received(4);
    assert.deepEqual(ada.data, ['0', '1', '2', 'two\nlines']);
    assert.deepEqual(
      ada.events.map(({ type }) => type),
      ['message', 'message', 'message', 'job.done'],
    );
    assert.deepEqual(
      ada.events.map(({ id }) => id.replace(/^\d+-/, '')),
      ['1', '2', '3', '7'],
    );
    assert.ok(ada.retryMs! >= 1000 && ada.retryMs! <= 4000);
    ada.close();
  });
});

test('with Last-Event-ID the gap comes in order, then what is live, and nothing twice at the seam', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events', 3);
    const server = await rig.serve({ news });
    let next = 0;
    let sending = true;
    // One partition at a time, so that the order is that of the numbers.
    const producer = (async () => {
      while (sending) {
        await rig.send(topic, numbered(next, next + 20), 0);
        next += 20;
      }
    })();
    const all: string[] = [];
    let id: string | undefined;
    for (let connection = 0; connection < 25; connection++) {
      const client = await StreamClient.open(
        `${server.url}/v1/stream?subscriber=ada`,
        id === undefined ? {} : { 'last-event-id': id },
      );
      await client.received(1 + connection * 7);
      client.close();
      await client.end();
      // What came after the close was asked for is there too: the client had it.
      all.push(...client.data);
      id = client.lastEventId;
    }
    sending = false;
    await producer;
    const rest = await StreamClient.open(`${server.url}/v1/stream?subscriber=ada`, { 'last-event-id': id! });
    await rest.received(next - all.length);
    all.push(...rest.data);
    rest.close();
    assert.deepEqual(all, texts(0, next));
  });
});

test('an id whose part is gone, and one that says nothing here, are told as a gap', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    let server = await rig.serve({ news });
    await rig.send(topic, numbered(0, 4));
    await rig.filled(server, 'news');
    const before = await StreamClient.open(`${server.url}/v1/stream?subscriber=ada`);
    await before.received(4);
    const [first, second] = before.events;
    await server.stop();

    const { pool } = rig.database;
    const { rows } = await pool.query('SELECT inbox_id AS inbox, part_id AS part FROM kafka.inbox_parts');
    await pool.query('SELECT kafka.inbox_open_part($1, 5)', [rows[0].inbox]);
    server = await rig.serve({ news });
    await rig.send(topic, numbered(4, 6));
    await rig.filled(server, 'news');
    await pool.query(`DROP TABLE kafka.inbox_part_${rows[0].part}, kafka.inbox_part_${rows[0].part}_receipts`);
    await pool.query('DELETE FROM kafka.inbox_parts WHERE part_id = $1', [rows[0].part]);

    const open = (id: string) => StreamClient.open(`${server.url}/v1/stream?subscriber=ada`, { 'last-event-id': id });
    const late = await open(second!.id);
    await late.received(3);
    const prefix = first!.id.split('-')[0]!;
    assert.deepEqual(late.events[0], {
      id: `${prefix}-4`,
      type: 'gap',
      data: JSON.stringify({ after: second!.id, first: `${prefix}-5` }),
    });
    assert.deepEqual(late.data.slice(1), ['4', '5']);
    const again = await open(late.events[0]!.id);
    await again.received(2);
    assert.deepEqual(again.data, ['4', '5'], 'a gap is told once');
    for (const id of ['nonsense', `${prefix}-1000`, '77-1']) {
      const stranger = await open(id);
      await stranger.received(3);
      assert.deepEqual([stranger.events[0]!.type, JSON.parse(stranger.data[0]!).after], ['gap', id]);
      assert.deepEqual(stranger.data.slice(1), ['4', '5']);
      stranger.close();
    }
    for (const client of [late, again]) client.close();
  });
});

test('processes that do not fill the inbox serve it too, several connections each, over new parts and a lost listener', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const leader = await rig.serve({ news });
    await rig.filled(leader, 'news').catch(() => {});
    const others = [await rig.serve({}, { fills: false }), await rig.serve({}, { fills: false })];
    const clients = await Promise.all(
      [leader, ...others, ...others].map(({ url }) => StreamClient.open(`${url}/v1/stream?subscriber=ada`)),
    );
    const everyone = (count: number) => Promise.all(clients.map(client => client.received(count)));
    await rig.send(topic, numbered(0, 50));
    await everyone(50);

    const { pool } = rig.database;
    await pool.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND application_name = 'millrace listener'`);
    await rig.send(topic, numbered(50, 60));
    await everyone(60);

    // The process that fills the inbox goes on in another part, from the next run on.
    await leader.stop();
    await pool.query(`SELECT kafka.inbox_open_part(inbox_id, 61) FROM kafka.inboxes`);
    const next = await rig.serve({ news });
    await rig.send(topic, numbered(60, 70));
    await Promise.all(clients.slice(1).map(client => client.received(70)));
    for (const client of clients.slice(1)) assert.deepEqual(client.data, texts(0, 70));
    for (const client of clients) client.close();
    await next.stop();
  });
});

test('an offline subscriber misses nothing, and what was written is not pending', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news });
    await rig.send(topic, numbered(0, 3));
    await rig.filled(server, 'news');
    const first = await StreamClient.open(`${server.url}/v1/stream?subscriber=ada`);
    await first.received(3);
    first.close();
    await first.end();
    const pending = async (): Promise<string[]> => {
      const response = await fetch(`${server.url}/v1/notifications/ada?state=pending`);
      const { notifications } = (await response.json()) as { notifications: { data: string }[] };
      return notifications.map(({ data }) => data);
    };
    await eventually(async () => (await pending()).length === 0);
    await rig.send(topic, numbered(3, 5));
    await rig.filled(server, 'news');
    assert.deepEqual(await pending(), ['3', '4']);
    await server.stop();
    const after = await rig.serve({ news });
    const second = await StreamClient.open(`${after.url}/v1/stream?subscriber=ada`);
    await second.received(2);
    assert.deepEqual(second.data, ['3', '4']);
    second.close();
  });
});

test('where the client acknowledges, what it has not acknowledged comes again, with the same ids', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news: { ...news, acknowledge: 'client' } });
    await rig.send(topic, numbered(0, 4));
    await rig.filled(server, 'news');
    const open = () => StreamClient.open(`${server.url}/v1/stream?subscriber=ada`);
    const first = await open();
    await first.received(4);
    const post = (body: unknown) =>
      fetch(`${server.url}/v1/ack`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
    assert.equal((await post({ subscriber: 'ada', id: first.events[1]!.id })).status, 204);
    assert.equal((await post({ subscriber: 'ada', id: first.events[0]!.id.replace(/\d+$/, '99') })).status, 400);
    assert.equal((await post({ subscriber: 'ada', id: 'x' })).status, 400);
    first.close();
    await first.end();
    const second = await open();
    await second.received(2);
    assert.deepEqual(second.events, first.events.slice(2));
    second.close();
  });
});

test('a client that takes nothing is bounded, disconnected, and not moved on past what it was sent', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news }, { limits: { ...limits, bufferBytes: 16 * 1024, stallMs: 300 } });
    const slow = await StreamClient.open(`${server.url}/v1/stream?subscriber=ada`);
    slow.pause();
    const quick = await StreamClient.open(`${server.url}/v1/stream?subscriber=bob`);
    const text = 'x'.repeat(1000);
    const count = 16_000; // far more than the sockets' buffers hold
    for (let i = 0; i < count; i += 500) {
      const records = Array.from({ length: 500 }, (_, j) => [
        { key: 'ada', value: `${i + j} ${text}` },
        { key: 'bob', value: `${i + j}` },
      ]).flat();
      await rig.send(topic, records);
    }
    await quick.received(count);
    assert.deepEqual(quick.data, texts(0, count));
    await eventually(() => server.deliveries.status()[0]!.closed.slow === 1);
    assert.equal(server.deliveries.connections, 1);
    await server.stop();

    slow.resume();
    await slow.end();
    const after = await rig.serve({ news });
    const again = await StreamClient.open(`${after.url}/v1/stream?subscriber=ada`);
    await again.until(() => again.data.at(-1)?.startsWith(`${count - 1} `) ?? false);
    const begin = Number(again.data[0]!.split(' ')[0]);
    assert.ok(begin > 0 && begin < count, `it begins again at ${begin}`);
    assert.deepEqual(
      again.data.map(data => Number(data.split(' ')[0])),
      Array.from({ length: count - begin }, (_, i) => begin + i),
    );
    again.close();
  });
});

test('a slow client that takes it all in the end gets it all, once', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news }, { limits: { ...limits, bufferBytes: 16 * 1024 } });
    const slow = await StreamClient.open(`${server.url}/v1/stream?subscriber=ada`);
    slow.pause();
    const text = 'x'.repeat(1000);
    const count = 12_000;
    for (let i = 0; i < count; i += 500) {
      await rig.send(
        topic,
        Array.from({ length: 500 }, (_, j) => ({ key: 'ada', value: `${i + j} ${text}` })),
      );
    }
    await rig.filled(server, 'news');
    slow.resume();
    await slow.received(count);
    assert.deepEqual(
      slow.data.map(data => Number(data.split(' ')[0])),
      Array.from({ length: count }, (_, i) => i),
    );
    slow.close();
  });
});

test('filters, replay from a time, and only what is new, leave what is pending as it is', async () => {
  await withRig(async rig => {
    const [jobs, other] = [await rig.createTopic('jobs'), await rig.createTopic('other')];
    const server = await rig.serve({ news: { topics: ['jobs', 'other'], type: 'header.type', priority: 'header.p' } });
    await rig.send(jobs, [{ key: 'ada', value: 'a', headers: { type: 't1', p: '9' } }]);
    await rig.filled(server, 'news');
    await rig.send(other, [{ key: 'ada', value: 'b', headers: { type: 't2', p: 'LOW' } }]);
    await rig.filled(server, 'news');
    const { rows } = await rig.database.pool.query<{ at: Date }>(
      `SELECT appended_at AS at FROM kafka.inbox_events('news') WHERE seq = 2`,
    );
    const open = (query: string) => StreamClient.open(`${server.url}/v1/stream?subscriber=ada&${query}`);
    const since = new Date(rows[0]!.at.getTime()).toISOString();
    for (const [query, expected] of [
      ['topics=jobs', ['a']],
      ['topics=oth*', ['b']],
      ['types=t2,t3', ['b']],
      ['priority=5', ['a']],
      ['since=0', ['a', 'b']],
      [`since=${since}`, ['b']],
    ] as const) {
      const client = await open(query);
      await client.received(expected.length);
      assert.deepEqual(client.data, expected, query);
      client.close();
    }
    const live = await open('from=now');
    await eventually(() => [...server.deliveries.status()][0]!.connections > 0);
    await rig.send(jobs, [{ key: 'ada', value: 'c' }]);
    await live.received(1);
    assert.deepEqual(live.data, ['c']);
    live.close();
    const all = await open('');
    await all.received(3);
    assert.deepEqual(all.data, ['a', 'b', 'c']);
    all.close();
    for (const query of ['from=then', 'since=lunch', 'priority=high', 'subscriber=bob']) {
      assert.equal((await open(query)).status, 400, query);
    }
  });
});

test('what has expired is not sent', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news: { ...news, expires: 'header.until' } });
    await rig.send(topic, [
      { key: 'ada', value: 'past', headers: { until: '2020-01-01T00:00:00Z' } },
      { key: 'ada', value: 'future', headers: { until: String(Math.round(Date.now() / 1000) + 3600) } },
      { key: 'ada', value: 'always' },
    ]);
    await rig.filled(server, 'news');
    const client = await StreamClient.open(`${server.url}/v1/stream?subscriber=ada`);
    await client.received(2);
    await rig.send(topic, [{ key: 'ada', value: 'past', headers: { until: '1' } }, ...numbered(7, 8)]);
    await client.received(3);
    assert.deepEqual(client.data, ['future', 'always', '7']);
    client.close();
  });
});

test('notifications are listed by page, and marked as read', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news });
    await rig.send(topic, [...numbered(0, 5), ...numbered(50, 52, 'bob')]);
    await rig.filled(server, 'news');
    const list = async (query: string) => {
      const response = await fetch(`${server.url}/v1/notifications/ada?${query}`);
      assert.equal(response.status, 200);
      return (await response.json()) as { notifications: { id: string; data: string; read: boolean }[]; next: string };
    };
    const page = await list('limit=3');
    assert.deepEqual(
      page.notifications.map(({ data }) => data),
      ['4', '3', '2'],
    );
    const rest = await list(`limit=3&page=${page.next}`);
    assert.deepEqual(
      rest.notifications.map(({ data }) => data),
      ['1', '0'],
    );
    assert.equal(rest.next, null);
    const read = await fetch(`${server.url}/v1/notifications/read`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ subscriber: 'ada', ids: [page.notifications[1]!.id], until: rest.notifications[1]!.id }),
    });
    assert.equal(read.status, 204);
    const unread = await list('state=unread');
    assert.deepEqual(
      unread.notifications.map(({ data }) => data),
      ['4', '2', '1'],
    );
  });
});

test('too many connections are told when to come back, and a stop lets everybody go', async () => {
  await withRig(async rig => {
    await rig.createTopic('events');
    const server = await rig.serve({ news }, { limits: { ...limits, connections: 3, connectionsPerSubscriber: 2 } });
    const open = (who: string) => StreamClient.open(`${server.url}/v1/stream?subscriber=${who}`);
    const clients = [await open('ada'), await open('ada')];
    const third = await open('ada');
    assert.equal(third.status, 429);
    clients.push(await open('bob'));
    const fourth = await open('eve');
    assert.equal(fourth.status, 503);
    assert.match(fourth.headers['retry-after'] as string, /^[1-6]$/);
    clients[0]!.close();
    await eventually(() => server.deliveries.connections === 2);
    clients.push(await open('eve'));
    assert.equal(clients[3]!.status, 200);
    const retries = new Set(clients.slice(1).map(client => client.retryMs));
    await server.stop();
    await Promise.all(clients.map(client => client.end()));
    assert.ok(retries.size > 0);
    assert.equal(server.deliveries.connections, 0);
  });
});

test('what is being stored as delivered is not pending either', async () => {
  await withRig(async rig => {
    const topic = await rig.createTopic('events');
    const server = await rig.serve({ news });
    await rig.send(topic, numbered(0, 3));
    await rig.filled(server, 'news');
    const channel = (await server.deliveries.channel('news'))!;
    // Somebody else holds the receipts, so that what is stored does not commit.
    const holder = await rig.database.pool.connect();
    const { rows } = await holder.query(
      `SELECT format('kafka.inbox_part_%s_receipts', part_id) AS name FROM kafka.inbox_parts`,
    );
    await holder.query(`BEGIN; LOCK TABLE ${rows[0].name} IN EXCLUSIVE MODE`);
    channel.receipts.delivered('ada', 3n);
    const stored = channel.receipts.flush();
    await eventually(async () => {
      const { rows: waiting } = await rig.database.pool.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      return waiting.length > 0;
    });
    const meanwhile = await channel.receipts.cursor('delivered', 'ada');
    await holder.query('COMMIT');
    holder.release();
    await stored;
    assert.equal(meanwhile, 3n);
    assert.equal(await channel.receipts.cursor('delivered', 'ada'), 3n);
  });
});
