// The whole process from outside: starting, stopping, being killed, on the embedded PostgreSQL.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import pg from 'pg';
import { clusterName, findProcesses, readPostmaster } from '../src/postgres/embedded-processes.ts';
import { Millrace, type Options } from './millrace.ts';

// Root's temporary directory is closed to the user that PostgreSQL then runs as, like a home with mode 0700.
const temporary = mkdtempSync(join(tmpdir(), 'millrace-start-'));
const dataDir = join(temporary, 'data');
const cluster = join(dataDir, 'postgres');
const started: Millrace[] = [];

after(async () => {
  for (const millrace of started) millrace.kill('SIGKILL');
  await Promise.all(started.map(millrace => millrace.exited));
  if (existsSync(cluster)) for (const pid of findProcesses(clusterName(cluster))) process.kill(pid, 'SIGKILL');
  rmSync(temporary, { recursive: true, force: true });
});

function start(...flags: string[]): Millrace {
  return run(flags);
}

function run(flags: readonly string[], options: Options = {}): Millrace {
  const millrace = new Millrace([`--data-dir=${dataDir}`, ...flags], options);
  started.push(millrace);
  return millrace;
}

async function query(sql: string) {
  const port = readFileSync(join(dataDir, 'port'), 'utf8').trim();
  const password = readFileSync(join(dataDir, 'password'), 'utf8').trim();
  const client = new pg.Client(`postgres://millrace:${password}@127.0.0.1:${port}/millrace`);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

function assertPostgresIsGone(): void {
  assert.deepEqual(findProcesses(clusterName(cluster)), []);
  assert.equal(existsSync(join(cluster, 'postmaster.pid')), false);
}

test('a signal while the cluster is being made ends the start, and leaves nothing behind', async () => {
  const millrace = await start().logged('making the database cluster');
  assert.deepEqual(await millrace.stop(), { code: 0, signal: null });
  assert.ok(!millrace.stdout.includes('is ready'));
});

test('a first start is ready, serves, and says how to use it; SIGTERM stops all of it', async () => {
  const millrace = await start().ready();
  assert.equal((await fetch(`${millrace.http}/readyz`)).status, 200);
  assert.match(await (await fetch(millrace.http)).text(), /embedded PostgreSQL/);
  const port = readFileSync(join(dataDir, 'port'), 'utf8').trim();
  for (const told of ['kcat -b 127.0.0.1:', 'kafka-console-consumer.sh', `-p ${port} -U millrace`]) {
    assert.ok(millrace.stdout.includes(told), told);
  }
  await query('CREATE TABLE kept AS SELECT 42 AS answer');
  assert.deepEqual(await millrace.stop(), { code: 0, signal: null });
  assert.doesNotMatch(millrace.stderr, /Warning/);
  assertPostgresIsGone();
});

test('a second start finds the data, at the same port; Ctrl-C, which npm doubles, stops it', async () => {
  const before = readFileSync(join(dataDir, 'port'), 'utf8');
  const millrace = await start().ready();
  assert.equal(readFileSync(join(dataDir, 'port'), 'utf8'), before);
  assert.deepEqual(await query('SELECT answer FROM kept'), [{ answer: 42 }]);
  millrace.kill('SIGINT');
  assert.deepEqual(await millrace.stop('SIGINT'), { code: 0, signal: null });
  assertPostgresIsGone();
});

test('a second Millrace on the same data is refused, and the first does not mind', async () => {
  const first = await start().ready();
  const second = start();
  assert.deepEqual(await second.exited, { code: 1, signal: null });
  assert.match(
    second.stderr,
    new RegExp(`another Millrace \\(process ${first.pid}\\) is running on the data directory`),
  );
  assert.equal((await fetch(`${first.http}/readyz`)).status, 200);
  await first.stop();
});

test('after SIGKILL the next start ends the orphaned PostgreSQL and has all that was committed', async () => {
  const killed = await start().ready();
  await query('CREATE TABLE committed AS SELECT 1 AS one');
  assert.deepEqual(await killed.stop('SIGKILL'), { code: null, signal: 'SIGKILL' });
  const orphan = readPostmaster(cluster)!.pid;
  assert.ok(findProcesses(clusterName(cluster)).includes(orphan));

  const next = await start().ready();
  assert.ok(next.stderr.includes('ended the PostgreSQL of a Millrace that was killed'));
  assert.notEqual(readPostmaster(cluster)!.pid, orphan);
  assert.deepEqual(await query('SELECT one FROM committed'), [{ one: 1 }]);
  await next.stop();
  assertPostgresIsGone();
});

test('after SIGKILL of everything at once the next start recovers', async () => {
  const killed = await start().ready();
  await query('CREATE TABLE recovered AS SELECT 2 AS two');
  killed.kill('SIGKILL');
  for (const pid of findProcesses(clusterName(cluster))) process.kill(pid, 'SIGKILL');
  await killed.exited;
  const next = await start().ready();
  assert.deepEqual(await query('SELECT two FROM recovered'), [{ two: 2 }]);
  await next.stop();
});

test('a postmaster.pid whose number another program has by now is no obstacle', async () => {
  const killed = await start().ready();
  const file = join(cluster, 'postmaster.pid');
  const [pid, ...rest] = readFileSync(file, 'utf8').split('\n');
  await killed.stop('SIGKILL');
  process.kill(Number(pid), 'SIGQUIT');
  while (findProcesses(clusterName(cluster)).length > 0) await new Promise(resolve => setImmediate(resolve));
  writeFileSync(file, [String(process.pid), ...rest].join('\n'));
  const next = await start().ready();
  await next.stop();
});

test('a PostgreSQL that is killed is started again under the same address', async () => {
  const millrace = await start().ready();
  process.kill(readPostmaster(cluster)!.pid, 'SIGKILL');
  await millrace.logged('PostgreSQL is back');
  assert.deepEqual(await query('SELECT answer FROM kept'), [{ answer: 42 }]);
  assert.deepEqual(await millrace.stop(), { code: 0, signal: null });
  assertPostgresIsGone();
});

test('npm start builds and runs it, and hands on the signal that npm gets', async () => {
  const millrace = run(['--http=0.0.0.0:0'], { command: ['npm', 'start', '--'] });
  await millrace.ready();
  assert.match(millrace.stderr, /"address":"0\.0\.0\.0:0","msg":"listening beyond this machine/);
  assert.equal((await fetch(`${millrace.http}/readyz`)).status, 200);
  assert.deepEqual(await millrace.stop(), { code: 0, signal: null });
  assertPostgresIsGone();
});

test('a second signal gives up what the first still waits for', async () => {
  const millrace = await start('--profiling', '--shutdown-timeout-ms=1h').ready();
  const request = fetch(`${millrace.http}/debug/cpu-profile?seconds=300`).then(
    response => response.text(),
    () => 'cut',
  );
  await untilProfiling(millrace.http);
  millrace.kill('SIGTERM');
  await millrace.logged('stopping');
  const repeat = setInterval(() => millrace.kill('SIGTERM'), 100);
  assert.deepEqual(await millrace.exited, { code: 1, signal: null });
  clearInterval(repeat);
  assert.equal(await request, 'cut');
  assertPostgresIsGone();
});

async function untilProfiling(http: string): Promise<void> {
  for (;;) {
    const { status } = await fetch(`${http}/debug/cpu-profile?seconds=0.001`);
    if (status === 409) return;
  }
}
