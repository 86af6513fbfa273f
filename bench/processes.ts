// What /proc says about process trees: CPU time, memory, and stopping a whole tree while another system is measured.
import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ, which /proc/PID/stat counts in, is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;
const MB = 1e6;

/** The roots and everything under them. */
export function treeOf(roots: readonly number[]): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const parent = statOf(Number(entry))?.parent;
    if (parent === undefined) continue;
    const siblings = children.get(parent);
    if (siblings) siblings.push(Number(entry));
    else children.set(parent, [Number(entry)]);
  }
  const tree: number[] = [];
  const walk = (pid: number) => {
    tree.push(pid);
    for (const child of children.get(pid) ?? []) walk(child);
  };
  for (const root of roots) if (statOf(root)) walk(root);
  return tree;
}

/** CPU seconds of the trees, children that have ended and been waited for included. */
export function cpuSeconds(roots: readonly number[]): number {
  return treeOf(roots).reduce((sum, pid) => sum + (statOf(pid)?.cpu ?? 0), 0);
}

/** Resident memory with every shared page counted once over the processes that share it (PSS). */
export function residentMb(roots: readonly number[]): number {
  let kilobytes = 0;
  for (const pid of treeOf(roots)) {
    try {
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
      kilobytes += Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1] ?? 0);
    } catch {
      // ended meanwhile
    }
  }
  return (kilobytes * 1024) / MB;
}

/** Memory that only these processes have: without Postgres's shared buffers, and without what files are cached. */
export function privateMb(roots: readonly number[]): number {
  let kilobytes = 0;
  for (const pid of treeOf(roots)) {
    try {
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
      for (const match of rollup.matchAll(/^Private_(?:Clean|Dirty):\s+(\d+) kB/gm)) kilobytes += Number(match[1]);
    } catch {
      // ended meanwhile
    }
  }
  return (kilobytes * 1024) / MB;
}

export function signalAll(pids: readonly number[], signal: 'SIGSTOP' | 'SIGCONT'): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // ended meanwhile
    }
  }
}

function statOf(pid: number): { parent: number; cpu: number } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The name stands in parentheses and may hold spaces: state is the first field after it.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [user, system, childUser, childSystem] = fields.slice(11, 15).map(Number) as [number, number, number, number];
  return { parent: Number(fields[1]), cpu: (user + system + childUser + childSystem) / ticksPerSecond };
}
