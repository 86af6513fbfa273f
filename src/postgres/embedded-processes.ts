// Finds and ends the PostgreSQL processes that a killed Millrace left behind. Each cluster's processes carry its
// name in their command lines (cluster_name), which anybody may read, unlike another user's working directory.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf, OperationalError } from '../runtime/errors.ts';
import type { DataDirectory } from './data-directory.ts';

const pollMs = 10;
const fastShutdownMs = 15_000;
const immediateShutdownMs = 5000;

/** The same for as long as the directory lives, wherever it is moved to. */
export function clusterName(cluster: string): string {
  const { dev, ino } = statSync(cluster);
  return `millrace-${createHash('sha256').update(`${dev}:${ino}`).digest('hex').slice(0, 12)}`;
}

export function findProcesses(name: string): number[] {
  return commandLines()
    .filter(([, command]) => command.includes(name) && command.includes('postgres'))
    .map(([pid]) => pid);
}

function commandLines(): [number, string][] {
  if (process.platform !== 'linux') {
    const lines = execFileSync('ps', ['-axo', 'pid=,command='], { encoding: 'utf8' }).trim().split('\n');
    return lines.map(line => [Number.parseInt(line, 10), line]);
  }
  const found: [number, string][] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      found.push([Number(entry), readFileSync(`/proc/${entry}/cmdline`, 'utf8')]);
    } catch {} // it has ended meanwhile
  }
  return found;
}

/**
 * Ends what still runs on the cluster, so that the next postmaster can begin: fast shutdown, then immediate, then
 * SIGKILL. PostgreSQL recovers from any of them. Returns whether there was anything.
 */
export async function endLeftovers({ cluster, sockets }: DataDirectory): Promise<boolean> {
  if (!existsSync(cluster)) return false;
  const name = clusterName(cluster);
  const found = findProcesses(name);
  const postmaster = readPostmaster(cluster);
  if (found.length > 0) {
    if (postmaster !== undefined && found.includes(postmaster.pid)) {
      await endBy('SIGINT', [postmaster.pid], name, fastShutdownMs);
      await endBy('SIGQUIT', [postmaster.pid], name, immediateShutdownMs);
    } else {
      // The postmaster is gone; its children end by themselves once they notice.
      await endBy('SIGQUIT', found, name, immediateShutdownMs);
    }
    await endBy('SIGKILL', findProcesses(name), name, immediateShutdownMs);
    if (findProcesses(name).length > 0) {
      throw new OperationalError(
        `PostgreSQL processes that an earlier Millrace left behind do not end (${found.join(', ')})`,
        {
          code: 'EMBEDDED_POSTGRES',
          hint: 'end them and start again',
        },
      );
    }
  }
  // After a reboot, or in a new container, the number in a lock file may be another program's by now, or that of a
  // process that nobody has waited for; PostgreSQL would take either for its own. With the process gone, it sorts
  // postmaster.pid out itself, and uses it to look for shared memory that is still attached.
  if (postmaster !== undefined && isAlive(postmaster.pid)) rmSync(join(cluster, 'postmaster.pid'), { force: true });
  for (const file of readdirSync(sockets)) {
    if (file.startsWith('.s.PGSQL.')) rmSync(join(sockets, file), { force: true });
  }
  return found.length > 0;
}

async function endBy(signal: NodeJS.Signals, pids: readonly number[], name: string, waitMs: number): Promise<void> {
  if (findProcesses(name).length === 0) return;
  for (const pid of pids) sendSignal(pid, signal);
  for (const end = Date.now() + waitMs; Date.now() < end; await delay(pollMs)) {
    if (findProcesses(name).length === 0) return;
  }
}

function sendSignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

const isAlive = (pid: number): boolean => sendSignal(pid, 0);

export interface Postmaster {
  readonly pid: number;
  readonly ready: boolean;
}

/** postmaster.pid: process id in line 1, and in line 8 what pg_ctl waits for. */
export function readPostmaster(cluster: string): Postmaster | undefined {
  let lines: string[];
  try {
    lines = readFileSync(join(cluster, 'postmaster.pid'), 'utf8').split('\n');
  } catch {
    return undefined;
  }
  const pid = Number.parseInt(lines[0] ?? '', 10);
  return pid > 0 ? { pid, ready: /^(ready|standby)$/.test(lines[7]?.trim() ?? '') } : undefined;
}
