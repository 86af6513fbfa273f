import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createDatabase, onServer, type TestDatabase } from '../../test/database.ts';
import { beginTerm } from '../storage/leadership.ts';
import { openPool } from './pool.ts';
import { Session } from './session.ts';

let database: TestDatabase;

const defaults = {
  synchronous_commit: 'off',
  default_transaction_isolation: 'repeatable read',
  statement_timeout: '10s',
  lock_timeout: '10s',
  idle_session_timeout: '10s',
  DateStyle: 'SQL, DMY',
};
const expected = ['on', 'read committed', '0', '0', '0', 'ISO, DMY'];
const settings = Object.keys(defaults).map(name => `current_setting('${name}')`);

before(async () => {
  database = await createDatabase();
  const name = new URL(database.url).pathname.slice(1);
  await onServer(async client => {
    for (const [setting, value] of Object.entries(defaults)) {
      await client.query(`ALTER DATABASE ${name} SET ${setting} = '${value}'`);
    }
  });
});

after(() => database?.drop());

test('defaults of the database do not reach the pool', async t => {
  const pool = openPool(database.url, { max: 1, applicationName: 'millrace test' });
  t.after(() => pool.end());
  const { rows } = await pool.query({ text: `SELECT ${settings.join(', ')}`, rowMode: 'array' });
  assert.deepEqual(rows[0], expected);
});

test('nor the writers and readers', async t => {
  const session = await Session.open(database.url, { applicationName: 'millrace test' });
  t.after(() => session.end());
  const { rows } = await session.query(`SELECT ${settings.join(', ')}`, []);
  assert.deepEqual(rows[0]!.map(String), expected);
});

test('nor the leader', async t => {
  const term = await beginTerm({
    databaseUrl: database.url,
    brokerId: 1,
    advertised: 'here:9092',
    patienceMs: 1000,
    formerBackends: [],
    ownEpochs: new Set(),
    signal: new AbortController().signal,
    onLost: () => {},
  });
  t.after(() => term.connection.end());
  const { rows } = await term.connection.query({ text: `SELECT ${settings.join(', ')}`, rowMode: 'array' });
  assert.deepEqual(rows[0], expected);
});

test('a stricter synchronous_commit stays', async t => {
  const name = new URL(database.url).pathname.slice(1);
  await onServer(client => client.query(`ALTER DATABASE ${name} SET synchronous_commit = remote_apply`));
  const pool = openPool(database.url, { max: 1, applicationName: 'millrace test' });
  t.after(() => pool.end());
  const { rows } = await pool.query('SHOW synchronous_commit');
  assert.equal(rows[0].synchronous_commit, 'remote_apply');
});
