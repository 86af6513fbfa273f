// /api/captures of a whole Millrace: made, killed, there again, paused, deleted; and what is refused, as JSON.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { createDatabase, type TestDatabase } from './database.ts';
import { Millrace } from './millrace.ts';

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown> & { error?: string; hint?: string; state?: string };
}

const directory = mkdtempSync(join(tmpdir(), 'millrace-captures-http-'));
const file = join(directory, 'millrace.yaml');
const suffix = Math.random().toString(36).slice(2, 10);
const shop = `shop_${suffix}`;
const filed = `filed_${suffix}`;
let database: TestDatabase;
let millrace: Millrace | undefined;

before(async () => {
  database = await createDatabase();
  await database.pool.query('CREATE TABLE items (id int PRIMARY KEY)');
  writeFileSync(file, '');
});
afterEach(async () => {
  await millrace?.stop();
  writeFileSync(file, '');
});
after(async () => {
  await database.drop();
  rmSync(directory, { recursive: true });
});

async function start(): Promise<void> {
  millrace = new Millrace([`--database-url=${database.url}`, `--config=${file}`]);
  await millrace.ready();
}

async function ask(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(`${millrace!.http}/api/captures${path}`, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  assert.match(response.headers.get('content-type') ?? '', /^application\/json/, `${method} ${path}`);
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}

async function eventually(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 240_000; !(await condition()); ) {
    assert.ok(Date.now() < deadline, 'never so');
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

async function ids(topic: string): Promise<number[]> {
  const { rows } = await database.pool.query<{ id: number }>(
    `SELECT (convert_from(value, 'UTF8')::json ->> 'id')::int AS id FROM kafka.messages WHERE topic = $1 ORDER BY global_offset`,
    [topic],
  );
  return rows.map(({ id }) => id);
}

const definition = { tables: ['public.items'], format: 'after' };

test('a capture that was made is there after kill -9 at any moment, and misses no row', async () => {
  await start();
  let rows = 0;
  for (const delayMs of [0, 5, 15, 40, 80, 160]) {
    const name = `k${delayMs}_${suffix}`;
    await database.pool.query('INSERT INTO items VALUES ($1)', [++rows]);
    assert.equal((await ask('POST', '', { name, definition })).status, 201);
    await new Promise(resolve => setTimeout(resolve, delayMs)); // the moment of the kill, not a wait
    await millrace!.stop('SIGKILL');
    await start();
    await database.pool.query('INSERT INTO items VALUES ($1)', [++rows]);
    // One that was changed before it was read is there as both.
    await eventually(async () => new Set(await ids(`${name}.public.items`)).size === rows);
    assert.deepEqual((await ask('DELETE', `/${name}`)).body, { left: [] });
  }
  const { rows: slots } = await database.pool.query(
    'SELECT FROM pg_replication_slots WHERE database = current_database()',
  );
  assert.equal(slots.length, 0);
});

test('pause and resume hold over restarts, and restart begins it again', async () => {
  await start();
  await ask('POST', '', { name: shop, definition });
  assert.equal((await ask('POST', `/${shop}/pause`)).body.state, 'paused');
  await millrace!.stop('SIGKILL');
  await start();
  assert.equal((await ask('GET', `/${shop}`)).body.state, 'paused');
  const refused = await ask('POST', `/${shop}/restart`);
  assert.deepEqual([refused.status, refused.body.hint], [409, 'resume it']);
  assert.equal((await ask('POST', `/${shop}/resume`)).status, 200);
  await eventually(async () => (await ask('GET', `/${shop}`)).body.state === 'streaming');
  assert.equal((await ask('POST', `/${shop}/restart`)).status, 200);
  await eventually(async () => (await ask('GET', `/${shop}`)).body.state === 'streaming');
  const done = async () => ((await ask('GET', `/${shop}`)).body.snapshots as { state: string }[])[0]?.state === 'done';
  await eventually(done);
  const again = await ask('POST', `/${shop}/resnapshot?table=public.*`);
  assert.deepEqual([again.status, again.body], [202, { tables: 1 }]);
  assert.equal((await ask('DELETE', `/${shop}`)).status, 200);
});

test('what cannot be done is refused with the reason and the way out', async () => {
  writeFileSync(file, `capture:\n  ${filed}:\n    tables: [public.items]\n`);
  await start();
  await ask('POST', '', { name: shop, definition });
  const cases: [status: number, error: RegExp, hint: RegExp | undefined, ...Parameters<typeof ask>][] = [
    [409, /there is a capture/, /delete it first/, 'POST', '', { name: shop, definition }],
    [409, /there is a capture/, /delete it first/, 'POST', '', { name: filed, definition }],
    [400, /the body does not tell a capture/, /"name"/, 'POST', '', {}],
    [400, /JSON/, undefined, 'POST', '', '{"name"'],
    [400, /^capture\.x\.tables is missing$/, /give a list/, 'POST', '', { name: 'x', definition: {} }],
    [
      400,
      /^capture\.x\.format is "xml"$/,
      /debezium, plain or after/,
      'POST',
      '',
      { name: 'x', definition: { tables: ['a.b'], format: 'xml' } },
    ],
    [
      400,
      /^capture\.x\.tabels is not a setting$/,
      /did you mean tables/,
      'POST',
      '',
      { name: 'x', definition: { tabels: ['a.b'] } },
    ],
    [
      415,
      /content-type|Media Type/i,
      /application\/json/,
      'POST',
      '',
      'name=x',
      { 'content-type': 'application/x-www-form-urlencoded' },
    ],
    [404, /there is no capture nobody/, undefined, 'GET', '/nobody'],
    [404, /there is no capture nobody/, undefined, 'DELETE', '/nobody'],
    [404, /there is no capture nobody/, undefined, 'POST', '/nobody/restart'],
    [404, /./, undefined, 'POST', `/${shop}/dance`],
    [409, new RegExp(`capture ${filed} is in ${file}`), /take it out/, 'DELETE', `/${filed}`],
    [400, /no table is named/, /table=/, 'POST', `/${shop}/resnapshot`],
    [403, /from this machine only/, undefined, 'POST', '', { name: 'x', definition }, { origin: 'http://127.0.0.1' }],
    [403, /from this machine only/, undefined, 'DELETE', `/${shop}`, undefined, { origin: 'http://127.0.0.1' }],
  ];
  for (const [status, error, hint, ...asked] of cases) {
    const answer = await ask(...asked);
    assert.equal(answer.status, status, `${JSON.stringify(asked)}: ${JSON.stringify(answer)}`);
    assert.match(answer.body.error ?? '', error);
    assert.match(answer.body.hint ?? '', hint ?? /^/);
  }
  const all = (await (await fetch(`${millrace!.http}/api/captures`)).json()) as { name: string; origin: string }[];
  assert.deepEqual(
    all.map(({ name, origin }) => [name, origin]),
    [
      [filed, 'file'],
      [shop, 'http'],
    ],
  );
  writeFileSync(file, '');
  await millrace!.stop();
  await start();
  for (const name of [shop, filed]) assert.deepEqual((await ask('DELETE', `/${name}`)).body, { left: [] });
});

test('a mistake in the file ends the start, and names the file, the key and what was expected', async () => {
  writeFileSync(file, `capture:\n  orders:\n    tables: orders\n`);
  millrace = new Millrace([`--database-url=${database.url}`, `--config=${file}`]);
  assert.equal((await millrace.exited).code, 2);
  assert.ok(millrace.stderr.includes(`capture.orders.tables in ${file} is "orders"; give a list`), millrace.stderr);
});
