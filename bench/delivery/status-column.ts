// The design that inboxes replace, as well as it can be built without leaving it: one row an event with a status that goes
// from not_pushed over claimed to pushed. See peer-process.ts.
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { Notification } from '../../examples/notifications/notification.ts';
import { readTopic } from './peer-source.ts';

const [databaseUrl = '', bootstrap = '', topic = ''] = process.argv.slice(2);
const pickers = 4;
const claimed = 500;
const lease = '30 seconds';
const reclaimEveryMs = 10_000;
/** A picker that found nothing looks again. */
const pollMs = 20;
const priorities = { LOW: 1, MEDIUM: 4, HIGH: 7 } as const;

interface Row {
  readonly id: string;
  readonly user_id: string;
  readonly event_type: string;
  readonly payload: string;
}

const pool = new pg.Pool({ connectionString: databaseUrl, max: pickers + 3, application_name: 'bench status column' });
await pool.query(`
  CREATE TABLE notifications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id text NOT NULL UNIQUE, user_id text NOT NULL,
    event_type text NOT NULL, priority smallint NOT NULL, payload text NOT NULL, status text NOT NULL DEFAULT 'not_pushed',
    instance_id text, lease_timeout timestamptz, retry_count int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 80);
  CREATE INDEX ON notifications (priority DESC, id) WHERE status = 'not_pushed';
  CREATE INDEX ON notifications (lease_timeout) WHERE status = 'claimed'`);

const connections = new Map<string, Set<ServerResponse>>();
const server = createServer((request, response) => {
  const user = new URL(request.url ?? '', 'http://localhost').searchParams.get('subscriber') ?? '';
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write('retry: 1000\n\n');
  const own = connections.get(user) ?? new Set();
  connections.set(user, own.add(response));
  response.on('close', () => {
    own.delete(response);
    if (own.size === 0) connections.delete(user);
  });
});
await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));

await readTopic(bootstrap, topic, async texts => {
  const events = texts.map(text => JSON.parse(text) as Notification);
  await pool.query({
    name: 'insert',
    text: `INSERT INTO notifications (event_id, user_id, event_type, priority, payload)
      SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::text[]) ON CONFLICT DO NOTHING`,
    values: [
      events.map(event => event.event_id),
      events.map(event => event.user_id),
      events.map(event => event.event_type),
      events.map(event => priorities[event.priority]),
      texts,
    ],
  });
});

for (let i = 0; i < pickers; i++) void pick(`picker-${i}`);
setInterval(() => {
  void pool.query(
    `UPDATE notifications SET status = 'not_pushed', retry_count = retry_count + 1
     WHERE status = 'claimed' AND lease_timeout < now()`,
  );
}, reclaimEveryMs);
process.send?.(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);

async function pick(instance: string): Promise<never> {
  for (;;) {
    const { rows } = await pool.query<Row>({
      name: 'claim',
      text: `UPDATE notifications n SET status = 'claimed', instance_id = $1, lease_timeout = now() + interval '${lease}'
        FROM (SELECT id FROM notifications WHERE status = 'not_pushed' ORDER BY priority DESC, id LIMIT ${claimed}
          FOR UPDATE SKIP LOCKED) c
        WHERE n.id = c.id RETURNING n.id, n.user_id, n.event_type, n.payload`,
      values: [instance],
    });
    if (rows.length === 0) {
      await delay(pollMs);
      continue;
    }
    for (const { id, user_id, event_type, payload } of rows) {
      const text = `id: ${id}\nevent: ${event_type}\ndata: ${payload}\n\n`;
      for (const response of connections.get(user_id) ?? []) response.write(text);
    }
    await pool.query({
      name: 'pushed',
      text: `UPDATE notifications SET status = 'pushed', lease_timeout = NULL WHERE id = ANY ($1::bigint[])`,
      values: [rows.map(({ id }) => id)],
    });
  }
}
