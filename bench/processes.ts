// What /proc says about process trees: CPU time, memory, and stopping a whole tree while another system is measured.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

/** USER_HZ, which /proc/PID/stat counts in, is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;
const MB = 1e6;

/** Some processes with all that are under them, without the trees of others: a broker's Postgres is its child. */
export interface Processes {
  readonly roots: readonly number[];
  readonly without?: readonly number[];
}

/** The roots and everything under them. */
export function treeOf(roots: readonly number[], without: readonly number[] = []): number[] {
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
    if (without.includes(pid)) return;
    tree.push(pid);
    for (const child of children.get(pid) ?? []) walk(child);
  };
  for (const root of roots) if (statOf(root)) walk(root);
  return tree;
}

/** CPU seconds, children that have ended and been waited for included. */
export function cpuSeconds({ roots, without }: Processes): number {
  return treeOf(roots, without).reduce((sum, pid) => sum + (statOf(pid)?.cpu ?? 0), 0);
}

/** CPU seconds of this process's own children that have ended. */
export function endedChildrenCpuSeconds(): number {
  return statOf(process.pid)?.ended ?? 0;
}

/** As `ps` has it: a page that two processes share is counted twice. */
export const residentMb = (processes: Processes): number => sumMb(processes, /^Rss:\s+(\d+) kB/gm);

/** Every page once, divided among the processes that share it: the honest size of a Postgres. */
export const proportionalMb = (processes: Processes): number => sumMb(processes, /^Pss:\s+(\d+) kB/gm);

/** The part of it that is neither shared memory nor cached files: a Postgres without its shared buffers. */
export const anonymousMb = (processes: Processes): number => sumMb(processes, /^Pss_Anon:\s+(\d+) kB/gm);

/** What it needs for itself, its shared buffers counted once; programs and files that are mapped are not in it. */
export const ownMb = (processes: Processes): number => sumMb(processes, /^Pss_(?:Anon|Shmem):\s+(\d+) kB/gm);

/** Begins to count the most that the roots alone have been resident with. */
export function resetPeak({ roots }: Processes): void {
  for (const pid of roots) writeFileSync(`/proc/${pid}/clear_refs`, '5');
}

/** The most that the roots alone have been resident with since. */
export function peakMb({ roots }: Processes): number {
  const kilobytes = roots.map(pid =>
    Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]),
  );
  return (kilobytes.reduce((sum, one) => sum + one, 0) * 1024) / MB;
}

function sumMb({ roots, without }: Processes, lines: RegExp): number {
  let kilobytes = 0;
  for (const pid of treeOf(roots, without)) {
    try {
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
      for (const match of rollup.matchAll(lines)) kilobytes += Number(match[1]);
    } catch {
      // ended meanwhile
    }
  }
  return (kilobytes * 1024) / MB;
}

/** With `pids` stopped meanwhile: they stay warm, and cost nothing. */
export async function whileStopped<T>(pids: readonly number[], act: () => Promise<T>): Promise<T> {
  signalAll(pids, 'SIGSTOP');
  try {
    return await act();
  } finally {
    signalAll(pids, 'SIGCONT');
  }
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

function statOf(pid: number): { parent: number; cpu: number; ended: number } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The name stands in parentheses and may hold spaces: state is the first field after it.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [user, system, childUser, childSystem] = fields.slice(11, 15).map(Number) as [number, number, number, number];
  const ended = (childUser + childSystem) / ticksPerSecond;
  return { parent: Number(fields[1]), cpu: (user + system) / ticksPerSecond + ended, ended };
}
