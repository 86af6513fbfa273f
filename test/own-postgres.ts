// A PostgreSQL of a test's own, of the version that the others run on: for settings that need a start, and to be restarted.
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { EmbeddedPostgres } from '../src/postgres/embedded.ts';
import type { Installation } from '../src/postgres/embedded-binaries.ts';
import { onServer } from './database.ts';
import { findPostgres } from './other-postgres.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

export interface OwnPostgres {
  readonly url: string;
  stop(immediately?: boolean): Promise<void>;
  start(): Promise<void>;
  /** Restarts it, and starts a standby that follows it, made of its files. */
  standby(settings: Readonly<Record<string, string>>): Promise<OwnPostgres>;
  /** Stops it and removes its data. */
  remove(): Promise<void>;
}

export async function startPostgres(settings: Readonly<Record<string, string>>): Promise<OwnPostgres> {
  return run(await installationUnderTest(), newDirectory(), settings);
}

function newDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-postgres-'));
  chmodSync(directory, 0o711); // PostgreSQL may run as another user
  return directory;
}

async function run(
  installation: Installation,
  directory: string,
  settings: Readonly<Record<string, string>>,
): Promise<OwnPostgres> {
  const open = () =>
    new EmbeddedPostgres({
      dataDir: join(directory, 'data'),
      logger: pino({ level: 'silent' }),
      settings: { shared_buffers: '32MB', ...settings },
      installation,
      onFailure: error => console.error(error.sentence),
    });
  let postgres = open();
  await postgres.start();
  const own: OwnPostgres = {
    url: postgres.tcpUrl,
    stop: (immediately = false) => postgres.stop(immediately ? AbortSignal.abort() : new AbortController().signal),
    async start() {
      postgres = open();
      await postgres.start();
    },
    async standby(more) {
      await own.stop();
      const copy = newDirectory();
      execFileSync('cp', ['-a', join(directory, 'data'), copy]);
      await own.start();
      const cluster = join(copy, 'data/postgres');
      writeFileSync(join(cluster, 'standby.signal'), '');
      const { uid, gid } = statSync(cluster);
      chownSync(join(cluster, 'standby.signal'), uid, gid);
      const { port, username, password, pathname } = new URL(postgres.tcpUrl);
      const primary = `host=127.0.0.1 port=${port} user=${username} password=${password} dbname=${pathname.slice(1)}`;
      return run(installation, copy, { ...settings, primary_conninfo: primary, ...more });
    },
    async remove() {
      await postgres.stop(AbortSignal.abort());
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return own;
}

async function installationUnderTest(): Promise<Installation> {
  const { rows } = await onServer(client =>
    client.query<{ version: number }>(`SELECT current_setting('server_version_num')::int AS version`),
  );
  const major = Math.floor(rows[0]!.version / 10_000);
  const found = findPostgres(major, root);
  if (typeof found === 'string') throw new Error(found);
  return found;
}
