import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, before, test } from 'node:test';
import { createDatabase, onServer, serverUrl, type TestDatabase } from '../../test/database.ts';
import { OperationalError } from '../runtime/errors.ts';
import { checkDatabase, checkVersion } from './check.ts';

let database: TestDatabase;
const role = `millrace_check_${process.pid}`;

before(async () => {
  database = await createDatabase({ empty: true });
  await onServer(client => client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`));
});

after(async () => {
  await database.drop();
  await onServer(client => client.query(`DROP ROLE ${role}`));
});

function urlAs(user: string, password: string): string {
  const url = new URL(database.url);
  url.username = user;
  url.password = password;
  return url.href;
}

async function refusal(url: string): Promise<OperationalError> {
  const error = await checkDatabase(url, 10).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OperationalError, `${error}`);
  return error;
}

test('a superuser’s database passes', async () => {
  const report = await checkDatabase(database.url, 10);
  assert.match(report.version, /^\d+\.\d+/);
  assert.equal(report.database, new URL(database.url).pathname.slice(1));
});

test('more connections than the server has are warned about', async () => {
  const { warnings } = await checkDatabase(database.url, 100_000);
  assert.ok(warnings.some(warning => warning.includes('100000 connections')));
});

test('a role without CREATE on the database is told the statement that helps, and it helps', async () => {
  const error = await refusal(urlAs(role, 'secret'));
  assert.equal(error.code, 'DATABASE_PERMISSION');
  assert.match(error.sentence, /may not create schema kafka/);
  const statement = error.hint.slice(error.hint.indexOf('CREATE SCHEMA'));
  await database.pool.query(statement);
  const { warnings } = await checkDatabase(urlAs(role, 'secret'), 10);
  assert.ok(warnings.some(warning => warning.includes('REPLICATION')));
  await database.pool.query('DROP SCHEMA kafka');
});

test('a schema kafka of somebody else’s is named with its owner', async () => {
  await database.pool.query('CREATE SCHEMA kafka');
  const error = await refusal(urlAs(role, 'secret'));
  assert.equal(error.code, 'DATABASE_PERMISSION');
  assert.match(error.sentence, new RegExp(`belongs to \\w+, not to ${role}`));
  await database.pool.query('DROP SCHEMA kafka');
});

test('a database in another encoding, and a read-only one, are refused', async () => {
  const name = `millrace_latin_${process.pid}`;
  await onServer(client => client.query(`CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`));
  const url = new URL(serverUrl());
  url.pathname = `/${name}`;
  try {
    assert.match((await refusal(url.href)).sentence, /encoding LATIN1/);
  } finally {
    await onServer(client => client.query(`DROP DATABASE ${name}`));
  }
  await database.pool.query(
    `ALTER DATABASE ${new URL(database.url).pathname.slice(1)} SET default_transaction_read_only = on`,
  );
  assert.match((await refusal(database.url)).sentence, /read-only/);
});

test('a missing database, a missing role and a closed port are told apart', async () => {
  const url = new URL(serverUrl());
  url.pathname = '/no_such_database';
  assert.match((await refusal(url.href)).sentence, /there is no database no_such_database/);

  const closed = createServer();
  await new Promise<void>(resolve => closed.listen(0, '127.0.0.1', resolve));
  const { port } = closed.address() as { port: number };
  await new Promise(resolve => closed.close(resolve));
  const unreachable = await refusal(`postgres://me:hush@127.0.0.1:${port}/db`);
  assert.equal(unreachable.code, 'DATABASE_UNREACHABLE');
  assert.match(unreachable.sentence, new RegExp(`cannot reach the database at 127.0.0.1:${port}`));
  assert.ok(!unreachable.sentence.includes('hush'));
});

test('PostgreSQL 13 is too old and 14 is not', () => {
  assert.throws(() => checkVersion('13.22', 130_022), { code: 'DATABASE_VERSION' });
  checkVersion('14.0', 140_000);
});
