// npm run bench -- regression [--against REF]: this working tree beside an earlier commit of itself, in one run.
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { metrics, type Result } from './metrics.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The last release before this commit. */
export function lastRelease(): string {
  const tag = git('describe', '--tags', '--abbrev=0');
  if (!tag) throw new Error('no tag to compare with: name a commit with --against');
  return tag;
}

/** A worktree of the commit under `directory`, with this tree's dependencies where it asks for the same. */
export function checkOut(ref: string, directory: string): string {
  const path = join(directory, 'before-source');
  const { status, stderr } = spawnSync('git', ['worktree', 'add', '--detach', path, ref], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`no worktree of ${ref}: ${stderr.trim()}`);
  const lock = (tree: string): string => readFileSync(join(tree, 'package-lock.json'), 'utf8');
  if (lock(path) === lock(root)) symlinkSync(join(root, 'node_modules'), join(path, 'node_modules'));
  return path;
}

export function removeWorktree(path: string): void {
  rmSync(path, { recursive: true, force: true });
  git('worktree', 'prune');
}

/** A line for each figure in which more or less is better: now, before, and the ratio. */
export function compare(results: readonly Result[]): string[] {
  return results.flatMap(({ scenario, system, metric, median }) => {
    const { better } = metrics[metric];
    const before = results.find(
      other => other.system === 'before' && other.scenario === scenario && other.metric === metric,
    );
    if (system !== 'millrace' || better === 'neither' || !before?.median) return [];
    const ratio = `${(median / before.median).toFixed(2)} × (${better} is better)`;
    return `${scenario.padEnd(34)} ${metric.padEnd(28)} ${before.median} → ${median}  ${ratio}`;
  });
}

function git(...args: string[]): string {
  return spawnSync('git', args, { cwd: root, encoding: 'utf8' }).stdout.trim();
}
