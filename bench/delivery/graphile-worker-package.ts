// graphile-worker, installed beside the bench's other peers when it is asked for the first time.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const graphileWorkerVersion = '0.16.6';
export const graphileWorkerDirectory = fileURLToPath(new URL('../../.cache/bench/graphile-worker', import.meta.url));
const installTimeoutMs = 120_000;

/** Throws with the reason where it cannot be had. */
export function installGraphileWorker(): void {
  if (existsSync(`${graphileWorkerDirectory}/node_modules/graphile-worker/package.json`)) return;
  mkdirSync(graphileWorkerDirectory, { recursive: true });
  const wanted = ['--prefix', graphileWorkerDirectory, `graphile-worker@${graphileWorkerVersion}`];
  const options = { encoding: 'utf8', timeout: installTimeoutMs } as const;
  const installed = spawnSync('npm', ['install', '--no-audit', '--no-fund', ...wanted], options);
  if (installed.status === 0) return;
  throw new Error(`graphile-worker cannot be installed: ${installed.error?.message ?? installed.stderr}`);
}
