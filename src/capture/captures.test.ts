// What is done to captures: one thing after the other, over restarts, and with nothing left behind.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { type CaptureRig, openRig } from '../../test/capture-rig.ts';
import { givenIn } from '../runtime/definition.ts';
import { Pipelines } from '../storage/pipelines.ts';
import { Captures } from './captures.ts';

let rig: CaptureRig;
const running: Captures[] = [];
const env: Record<string, string> = {};

before(async () => {
  rig = await openRig();
  await rig.database.pool.query(`CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)`);
});
afterEach(async () => {
  for (const captures of running.splice(0)) await captures.stop(new AbortController().signal);
});
after(() => rig.remove());

/** Names are the slots', and slots the whole server's. */
const named = (name: string): string => `${name}_${rig.suffix}`;
const items = { tables: ['public.items'], snapshot: 'never' };

async function open(definitions: Readonly<Record<string, unknown>> = {}): Promise<Captures> {
  const captures = new Captures({
    context: rig.context,
    definitions: givenIn('/etc/millrace.yaml', definitions),
    references: { env, cwd: '/' },
    produce: undefined,
  });
  running.push(captures);
  await captures.start();
  return captures;
}

async function reached(captures: Captures, name: string, state: string): Promise<void> {
  await eventually(() => {
    const status = captures.describe(name);
    assert.ok(status.state !== 'failed' || state === 'failed', `${status.reason}`);
    return status.state === state;
  });
}

async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 240_000; !(await condition()); ) {
    assert.ok(Date.now() < deadline, 'never so');
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

const one = async <T>(query: string, values: unknown[] = []): Promise<T | undefined> =>
  (await rig.database.pool.query<{ it: T }>(query, values)).rows[0]?.it;
const walsenders = () =>
  one<number>(`SELECT count(*)::int AS it FROM pg_stat_replication WHERE application_name = 'millrace capture'
  AND pid IN (SELECT active_pid FROM pg_replication_slots WHERE database = current_database())`);
const waitingSlots = () =>
  one<number>(`SELECT count(*)::int AS it FROM pg_stat_activity
    WHERE datname = current_database() AND query ~ '^SELECT lsn.*pg_create_logical' AND wait_event_type = 'Lock'`);
const slotOf = (name: string) =>
  one<string>('SELECT slot_name AS it FROM pg_replication_slots WHERE slot_name = $1', [name]);

test('what is asked of a capture at once is done in turn: one runs, and stops', async () => {
  const name = named('turns');
  const captures = await open();
  await captures.create(name, items);
  await reached(captures, name, 'streaming');
  await captures.pause(name);
  await Promise.all([captures.resume(name), captures.restart(name), captures.restart(name), captures.resume(name)]);
  await reached(captures, name, 'streaming');
  assert.equal(await walsenders(), 1);
  await Promise.all([captures.restart(name), captures.pause(name)]);
  assert.equal(captures.describe(name).state, 'paused');
  await eventually(async () => (await walsenders()) === 0); // an orphan would stay
  await captures.delete(name);
});

test('a capture that is paused before it has ever begun stays paused', async () => {
  const name = named('early');
  // Its source cannot be reached, so nothing of it is noted by itself.
  const unreachable = { ...items, source: 'postgres://nobody@127.0.0.1:1/none' };
  const first = await open({ [name]: unreachable });
  await first.pause(name);
  await first.stop(new AbortController().signal);
  const second = await open({ [name]: unreachable });
  assert.equal(second.describe(name).state, 'paused');
  await second.resume(name);
  await second.stop(new AbortController().signal);
  const third = await open({ [name]: unreachable });
  assert.notEqual(third.describe(name).state, 'paused');
});

test('a stop does not wait for what a slot in the making waits for', { timeout: 300_000 }, async () => {
  const name = named('waiting');
  const writer = await rig.database.pool.connect();
  await writer.query('BEGIN; INSERT INTO items VALUES (2)');
  try {
    const captures = await open();
    await captures.create(name, items);
    await eventually(async () => (await waitingSlots()) === 1);
    await captures.restart(name);
    assert.deepEqual(await captures.delete(name), { left: [] });
    assert.equal(await slotOf(`millrace_${name}`), undefined);
  } finally {
    await writer.query('ROLLBACK');
    writer.release();
  }
});

test('captures made over HTTP are there again, and nothing is left of them when they are deleted', async () => {
  const name = named('made');
  const first = await open();
  const made = await first.create(name, items);
  assert.deepEqual([made.origin, made.definition], ['http', items]);
  await reached(first, name, 'streaming');
  await first.stop(new AbortController().signal);
  const second = await open();
  await reached(second, name, 'streaming');
  assert.deepEqual(second.describe(name).definition, items);
  assert.deepEqual(await second.delete(name), { left: [] });
  assert.equal(await slotOf(`millrace_${name}`), undefined);
  assert.equal(await one('SELECT 1 AS it FROM pg_publication WHERE pubname = $1', [`millrace_${name}`]), undefined);
  assert.equal(await one('SELECT 1 AS it FROM kafka.captures WHERE name = $1', [name]), undefined);
  assert.throws(() => second.describe(name), { refusal: 'unknown' });
  const third = await open();
  assert.throws(() => third.describe(name), { refusal: 'unknown' });
});

test('what Millrace did not make is not dropped, and what cannot be is told', async () => {
  const { pool } = rig.database;
  const theirs = named('theirs');
  await pool.query(`CREATE PUBLICATION ${theirs} FOR TABLE items`);
  await pool.query(`SELECT pg_create_logical_replication_slot('${theirs}', 'pgoutput')`);
  const captures = await open();
  const name = named('guest');
  await captures.create(name, { ...items, slot: theirs, publication: theirs });
  await reached(captures, name, 'streaming');
  const { left } = await captures.delete(name);
  assert.deepEqual(
    left.map(({ what, because }) => [what, because]),
    [
      [`replication slot ${theirs}`, 'Millrace did not make it'],
      [`publication ${theirs}`, 'Millrace did not make it'],
    ],
  );
  for (const { sql } of left) await pool.query(sql);
  env.GONE_URL = rig.database.url;
  const far = named('far');
  await captures.create(far, { ...items, source: 'env:GONE_URL' });
  await reached(captures, far, 'streaming');
  env.GONE_URL = 'postgres://nobody@127.0.0.1:1/none';
  const unreached = await captures.delete(far);
  assert.match(unreached.left[0]!.because, /ECONNREFUSED/);
  // The slot is let go of a moment after its connection has been closed.
  const held = `SELECT FROM pg_replication_slots WHERE active AND right(slot_name, length($1)) = $1`;
  await eventually(async () => (await pool.query(held, [far])).rowCount === 0);
  for (const { sql } of unreached.left) await pool.query(sql);
});

test('what is left of a capture that was taken out of the file is seen, and deleted', async () => {
  const name = named('filed');
  const first = await open({ [name]: items });
  await reached(first, name, 'streaming');
  await assert.rejects(first.delete(name), { refusal: 'file' });
  await first.stop(new AbortController().signal);
  const second = await open();
  const { origin, state, hint } = second.describe(name);
  assert.deepEqual([origin, state], ['removed', 'stopped']);
  assert.match(hint!, /DELETE/);
  await assert.rejects(second.resume(name), { refusal: 'state' });
  await assert.rejects(second.create(name, items), { refusal: 'exists' });
  assert.deepEqual(await second.delete(name), { left: [] });
  assert.equal(await slotOf(`millrace_${name}`), undefined);
});

test('secrets are references, looked up when a capture begins, and never shown', async () => {
  const name = named('secret');
  const captures = await open();
  const withSource = (source: string) => captures.create(name, { ...items, source });
  await assert.rejects(withSource('postgres://u:pa%2Fss@h/d'), {
    refusal: 'invalid',
    message: /source holds a password/,
  });
  await assert.rejects(withSource('postgres://u:pa/s@s@h/d'), { refusal: 'invalid' });
  await assert.rejects(withSource('env:NOT_SET'), { refusal: 'invalid', message: /NOT_SET, which is not set/ });
  const url = new URL(rig.database.url);
  url.password ||= 'very-secret'; // a server that trusts us takes any
  env.SOURCE_URL = url.href;
  await withSource('env:SOURCE_URL');
  await reached(captures, name, 'streaming');
  assert.deepEqual(captures.describe(name).definition, { ...items, source: 'env:SOURCE_URL' });
  const { rows } = await rig.database.pool.query(
    'SELECT (SELECT array_agg(c) FROM kafka.captures c)::text || (SELECT array_agg(p) FROM kafka.pipelines p)::text AS all',
  );
  for (const text of [JSON.stringify(captures.describe(name), replaceBigint), rows[0].all]) {
    assert.ok(text.includes('env:SOURCE_URL') && !text.includes(url.password), text);
  }
  await captures.stop(new AbortController().signal);
  delete env.SOURCE_URL;
  const later = await open();
  const { state, reason } = later.describe(name);
  assert.equal(state, 'failed');
  assert.match(reason!, /SOURCE_URL, which is not set/);
  env.SOURCE_URL = url.href;
  await later.resume(name);
  await reached(later, name, 'streaming');
  assert.deepEqual(await later.delete(name), { left: [] });
});

test('names, slots and publications are one capture’s; kinds of pipelines have names of their own', async () => {
  const name = named('single');
  const captures = await open();
  await captures.create(name, items);
  await assert.rejects(captures.create(name, items), { refusal: 'exists' });
  await assert.rejects(captures.create('sql', items), { refusal: 'exists' });
  const other = named('other');
  await assert.rejects(captures.create(other, { ...items, slot: `millrace_${name}` }), {
    refusal: 'exists',
    message: /slot/,
  });
  await assert.rejects(captures.create(other, { ...items, publication: `millrace_${name}` }), {
    message: /publication/,
  });
  await assert.rejects(captures.create('Bad', items), { refusal: 'invalid' });
  await new Pipelines('sink', rig.database.pool).add(other, {});
  await assert.rejects(captures.pause(other), { refusal: 'unknown' });
  const again = await open();
  assert.throws(() => again.describe(other), { refusal: 'unknown' });
  await again.stop(new AbortController().signal);
  await captures.delete(name);
});

const replaceBigint = (_key: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value);
