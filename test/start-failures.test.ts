// What can keep Millrace from starting: each one sentence with the remedy, an exit code, and nothing half-started.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createDatabase, onServer } from './database.ts';
import { cannotRunAs, Millrace, type Options } from './millrace.ts';

const temporary = mkdtempSync(join(tmpdir(), 'millrace-failures-'));
const nobody = { uid: 65_534, gid: 65_534 };
const untouched = join(temporary, 'untouched');
after(() => rmSync(temporary, { recursive: true, force: true }));

/** Starts a Millrace that must end with `code` and one line on stderr, which is returned. */
async function failure(code: number, flags: readonly string[], options: Options = {}): Promise<string> {
  const millrace = new Millrace(['--log-level=error', `--data-dir=${untouched}`, ...flags], options);
  const exit = await millrace.exited;
  assert.deepEqual(exit, { code, signal: null }, millrace.stderr);
  assert.equal(millrace.stdout, '');
  const lines = millrace.stderr.trim().split('\n');
  assert.equal(lines.length, 1, millrace.stderr);
  assert.match(lines[0]!, /^millrace: .+; .+/);
  return lines[0]!;
}

async function listen(): Promise<{ server: Server; port: number }> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return { server, port: (server.address() as { port: number }).port };
}

const close = (server: Server) => new Promise(resolve => server.close(resolve));

test('a taken port, before the data directory is filled', async () => {
  const { server, port } = await listen();
  assert.match(
    await failure(1, [`--kafka=127.0.0.1:${port}`]),
    new RegExp(`the Kafka port 127.0.0.1:${port} is taken; stop what listens there, or choose another with --kafka`),
  );
  assert.match(
    await failure(1, [`--http=127.0.0.1:${port}`]),
    new RegExp(`the HTTP port 127.0.0.1:${port} is taken; stop what listens there, or choose another with --http`),
  );
  await close(server);
  assert.equal(existsSync(join(untouched, 'postgres')), false);
});

test('an address that is not this machine’s', async () => {
  assert.match(await failure(1, ['--kafka=192.0.2.1:9092']), /cannot listen for Kafka on 192\.0\.2\.1:9092/);
});

test('a setting that is not known, and a value that does not fit', async () => {
  assert.match(
    await failure(2, ['--num-partition=3']),
    /unknown flag --num-partition; did you mean --num-partitions\?/,
  );
  assert.match(
    await failure(2, [], { env: { MILLRACE_SEGMENT_INTERVAL: 'weekly' } }),
    /environment variable MILLRACE_SEGMENT_INTERVAL is "weekly"; give one of hourly, daily/,
  );
  const file = join(temporary, 'settings.yaml');
  writeFileSync(file, 'retention.ms: 1\n');
  assert.match(
    await failure(2, [`--config=${file}`]),
    /unknown setting "retention\.ms" in .*settings\.yaml; did you mean/,
  );
});

test('a database that cannot be reached', async () => {
  const { server, port } = await listen();
  await close(server);
  assert.match(
    await failure(1, [`--database-url=postgres://me@127.0.0.1:${port}/db`]),
    new RegExp(`cannot reach the database at 127.0.0.1:${port} .*; start it, or correct --database-url`),
  );
  assert.match(
    await failure(2, ['--database-url=env:NOWHERE']),
    /refers to the environment variable NOWHERE, which is not set; set it/,
  );
});

test('a role without the permission, which can start once it has what the sentence says', async () => {
  const database = await createDatabase({ empty: true });
  const role = `millrace_start_${process.pid}`;
  await onServer(client => client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`));
  const url = new URL(database.url);
  url.username = role;
  url.password = 'secret';
  const flags = [`--database-url=${url.href}`];
  try {
    const sentence = await failure(1, flags);
    assert.match(sentence, new RegExp(`role ${role} may not create schema kafka in database`));
    await database.pool.query(sentence.slice(sentence.indexOf('CREATE SCHEMA')));

    const millrace = await new Millrace(flags).ready();
    assert.match(millrace.stdout, /Database +PostgreSQL \d+/);
    assert.ok(!millrace.stdout.includes('secret'));
    assert.ok(!millrace.stderr.includes('secret'));
    assert.equal((await fetch(`${millrace.http}/readyz`)).status, 200);
    assert.deepEqual(await millrace.stop(), { code: 0, signal: null });
  } finally {
    await database.drop();
    await onServer(client => client.query(`DROP ROLE ${role}`));
  }
});

test('a schema of a newer version', async () => {
  const database = await createDatabase();
  await database.pool.query(`INSERT INTO kafka.migrations (name, checksum) VALUES ('9999_later.sql', '')`);
  assert.match(await failure(1, [`--database-url=${database.url}`]), /migration 9999_later\.sql, which this version/);
  await database.drop();
});

test('data of another PostgreSQL version', async () => {
  const dataDir = join(temporary, 'older');
  mkdirSync(join(dataDir, 'postgres'), { recursive: true });
  writeFileSync(join(dataDir, 'postgres/PG_VERSION'), '9\n');
  assert.match(
    await failure(1, [`--data-dir=${dataDir}`]),
    /was made by PostgreSQL 9, and this Millrace brings PostgreSQL/,
  );
});

test('a data directory that cannot be made', async () => {
  const file = join(temporary, 'file');
  writeFileSync(file, '');
  assert.match(await failure(1, [`--data-dir=${join(file, 'data')}`]), /cannot use the data directory .* \(ENOTDIR/);
});

test('data of another user', { skip: cannotRunAs(nobody) }, async () => {
  const dataDir = join(temporary, 'roots');
  mkdirSync(join(dataDir, 'postgres'), { recursive: true });
  chmodSync(temporary, 0o755);
  assert.match(
    await failure(1, [`--data-dir=${dataDir}`], { user: nobody }),
    /cannot use the data directory .*; correct its owner/,
  );
  assert.deepEqual(readdirSync(join(dataDir, 'postgres')), []);
});
