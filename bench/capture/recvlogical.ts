// pg_recvlogical, which writes what the walsender sends to /dev/null: how fast PostgreSQL hands changes out at most.
import { spawn, spawnSync } from 'node:child_process';
import type { Backlog, CaptureSource } from './source.ts';

export const recvlogicalDescription = 'pg_recvlogical to /dev/null: what the walsender hands out at most';

/** Undefined where there is none. */
export function recvlogicalVersion(): string | undefined {
  const { error, stdout } = spawnSync('pg_recvlogical', ['--version'], { encoding: 'utf8' });
  return error ? undefined : stdout.trim();
}

/** Seconds that the backlog took. */
export async function drainToNowhere(source: CaptureSource, slot: string, backlog: Backlog): Promise<number> {
  const args = [...source.socket, '-d', source.tcp.database, '-S', slot, '--start', '-f', '/dev/null'];
  const plugin = ['-o', 'proto_version=1', '-o', 'publication_names=bench_backlog', `--endpos=${backlog.endLsn}`];
  const begun = performance.now();
  const child = spawn('pg_recvlogical', [...args, ...plugin, '--no-loop'], {
    env: source.environment,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', chunk => {
    said += chunk;
  });
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve));
  if (code !== 0) throw new Error(`pg_recvlogical: exit ${code}: ${said.trim()}`);
  return (performance.now() - begun) / 1000;
}
