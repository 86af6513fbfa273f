// A PostgreSQL of a test's own, of the version that the others run on: for settings that need a start, and to be restarted.
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { EmbeddedPostgres } from '../src/postgres/embedded.ts';
import { findInstallation, type Installation, majorVersion } from '../src/postgres/embedded-binaries.ts';
import { onServer } from './database.ts';
import { findOtherPostgres } from './other-postgres.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

export interface OwnPostgres {
  readonly url: string;
  stop(immediately?: boolean): Promise<void>;
  start(): Promise<void>;
  /** Stops it and removes its data. */
  remove(): Promise<void>;
}

export async function startPostgres(settings: Readonly<Record<string, string>>): Promise<OwnPostgres> {
  const installation = await installationUnderTest();
  const directory = mkdtempSync(join(tmpdir(), 'millrace-postgres-'));
  chmodSync(directory, 0o711); // PostgreSQL may run as another user
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
  return {
    url: postgres.tcpUrl,
    stop: (immediately = false) => postgres.stop(immediately ? AbortSignal.abort() : new AbortController().signal),
    async start() {
      postgres = open();
      await postgres.start();
    },
    async remove() {
      await postgres.stop(AbortSignal.abort());
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function installationUnderTest(): Promise<Installation> {
  const { rows } = await onServer(client =>
    client.query<{ version: number }>(`SELECT current_setting('server_version_num')::int AS version`),
  );
  const major = Math.floor(rows[0]!.version / 10_000);
  const embedded = findInstallation();
  if (majorVersion(embedded) === major) return embedded;
  const other = findOtherPostgres(root);
  if (typeof other === 'string' || majorVersion(other) !== major) throw new Error(`no programs of PostgreSQL ${major}`);
  return other;
}
