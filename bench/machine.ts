// The machine and the programs of a run, for FILE.meta.json.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem, type } from 'node:os';

export function describeMachine(): Record<string, string | number> {
  return {
    date: new Date().toISOString(),
    commit:
      (git('rev-parse', '--short', 'HEAD') || 'unknown') +
      (git('status', '--porcelain', 'src', 'migrations') ? ' and changes' : ''),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memory_gb: Math.round(totalmem() / 1e9),
    kernel: `${type()} ${release()}`,
    node: process.version,
    load_before: readFileSync('/proc/loadavg', 'latin1').split(' ').slice(0, 3).join(' '),
  };
}

function git(...args: string[]): string {
  return spawnSync('git', args, { encoding: 'utf8' }).stdout?.trim() ?? '';
}
