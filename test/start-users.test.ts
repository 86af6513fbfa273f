// Who runs Millrace and PostgreSQL, and what they can reach: root, a normal user, homes that are closed to others.
import assert from 'node:assert/strict';
import {
  chownSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import pg from 'pg';
import { pino } from 'pino';
import { EmbeddedPostgres } from '../src/postgres/embedded.ts';
import { findInstallation, prepareInstallation, readInstallation } from '../src/postgres/embedded-binaries.ts';
import { canReach, chooseOwner } from '../src/postgres/embedded-owner.ts';
import { readPostmaster } from '../src/postgres/embedded-processes.ts';
import { cannotRunAs, Millrace } from './millrace.ts';

const nobody = { uid: 65_534, gid: 65_534 };
const isRoot = process.getuid!() === 0;
const needsRoot = isRoot ? false : 'only root can become another user';

// Closed to others, as mkdtemp makes it.
const closed = mkdtempSync(join(tmpdir(), 'millrace-users-'));
after(() => rmSync(closed, { recursive: true, force: true }));

function embedded(dataDir: string, options: { installation?: ReturnType<typeof readInstallation> } = {}) {
  return new EmbeddedPostgres({
    dataDir,
    logger: pino({ level: 'silent' }),
    settings: { fsync: 'off', shared_buffers: '16MB', min_wal_size: '32MB', max_wal_size: '64MB' },
    onFailure: error => assert.fail(error.sentence),
    ...options,
  });
}

async function selectOne(url: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  assert.equal((await client.query('SELECT 1 AS one')).rows[0].one, 1);
  await client.end();
}

test('as root PostgreSQL runs as another user, whose data lie below a closed directory', {
  skip: needsRoot,
}, async () => {
  const dataDir = join(closed, 'data');
  for (const times of ['made', 'found again']) {
    const postgres = embedded(dataDir);
    await postgres.start();
    const { pid } = readPostmaster(join(dataDir, 'postgres'))!;
    assert.notEqual(statSync(`/proc/${pid}`).uid, 0, times);
    await selectOne(postgres.url);
    await selectOne(postgres.tcpUrl);
    await postgres.stop(new AbortController().signal);
  }
  assert.equal(statSync(join(dataDir, 'password')).mode & 0o777, 0o600);
  assert.equal(statSync(join(dataDir, 'run')).mode & 0o777, 0o700);
});

test('binaries that PostgreSQL’s user cannot reach, installed without their links, are copied', {
  skip: needsRoot,
}, async t => {
  const name = findInstallation().directory;
  const packageDirectory = join(closed, 'package');
  const native = join(packageDirectory, 'native');
  mkdirSync(packageDirectory);
  cpSync(name, native, { recursive: true, verbatimSymlinks: true });
  const version = `18.0.0-test.${process.pid}`;
  writeFileSync(join(packageDirectory, 'package.json'), JSON.stringify({ version }));
  const links: { target: string }[] = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8'));
  for (const { target } of links) rmSync(join(packageDirectory, target));

  const installation = readInstallation(packageDirectory);
  const prepared = prepareInstallation(installation, nobody);
  t.after(() => rmSync(prepared.directory, { recursive: true }));
  assert.ok(!prepared.directory.startsWith(closed));
  assert.ok(canReach(join(prepared.directory, 'bin'), nobody));
  assert.deepEqual(readdirSync(join(prepared.directory, 'lib')), readdirSync(join(name, 'lib')));
  assert.deepEqual(prepareInstallation(installation, nobody), prepared);

  const postgres = embedded(join(closed, 'copied'), { installation });
  await postgres.start();
  await selectOne(postgres.url);
  await postgres.stop(new AbortController().signal);
});

test('a path that is too long for a socket has its sockets elsewhere', async () => {
  const dataDir = join(closed, 'long'.repeat(20), 'data');
  const postgres = embedded(dataDir);
  await postgres.start();
  await selectOne(postgres.url);
  await postgres.stop(new AbortController().signal);
  const { sockets } = postgres.directory;
  assert.ok(sockets.startsWith(tmpdir()));
  assert.equal(statSync(sockets).mode & 0o777, 0o700);
  rmSync(sockets, { recursive: true });
});

test('a normal user starts and stops it from a closed home; then root does, and leaves the data theirs', {
  skip: cannotRunAs(nobody),
}, async () => {
  const home = mkdtempSync(join(tmpdir(), 'millrace-home-'));
  chownSync(home, nobody.uid, nobody.gid);
  const dataDir = join(home, '.millrace');
  const cluster = join(dataDir, 'postgres');
  try {
    for (const user of [nobody, undefined, nobody]) {
      const millrace = await new Millrace([`--data-dir=${dataDir}`], {
        env: { HOME: home },
        ...(user ? { user } : {}),
      }).ready();
      assert.equal((await fetch(`${millrace.http}/readyz`)).status, 200);
      assert.deepEqual(await millrace.stop(), { code: 0, signal: null });
      for (const path of [dataDir, cluster, join(dataDir, 'password')]) {
        assert.equal(statSync(path).uid, nobody.uid, path);
      }
    }
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
});

test('the owner is this process’s user, or as root one that exists and is not root', () => {
  const owner = chooseOwner(join(closed, 'nothing-here'));
  if (isRoot) assert.notEqual(owner.uid, 0);
  else assert.equal(owner.uid, process.getuid!());
});

test('a directory is reached through every one above it', { skip: needsRoot }, () => {
  assert.equal(canReach(closed, nobody), false);
  assert.equal(canReach(closed, { uid: 0, gid: 0 }), true);
  assert.equal(canReach(tmpdir(), nobody), true);
});
