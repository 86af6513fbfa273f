// npm run bench -- regression [--against REF]: whether this working tree is slower than an earlier commit of itself.
// Both are started and take turns in one run, as any systems of the bench do.
import { spawnSync } from 'node:child_process';
import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Metric, metrics, type Result } from './metrics.ts';
import { readable } from './svg.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * How many times worse a median may be. A commit beside itself differs by a twentieth here in throughput and CPU time, by
 * more in latency, most in its tail.
 */
const limits: Partial<Record<Metric, number>> = {
  records_per_s: 1.15,
  cpu_s_per_million: 1.2,
  ack_p50_ms: 1.25,
  p50_ms: 1.25,
  p99_ms: 2,
};

export interface Comparison {
  readonly scenario: string;
  readonly metric: Metric;
  readonly before: Result;
  readonly now: Result;
  readonly limit: number;
  /** How many times worse the median is, whichever way is better; below 1 it has improved. */
  readonly timesWorse: number;
  /** `unclear`: past the limit, but some round of now was as good as some round before. */
  readonly verdict: 'passed' | 'unclear' | 'slower';
}

/** The tag of the last release before this commit, if there has been one. */
export function lastRelease(): string | undefined {
  return git('describe', '--tags', '--abbrev=0').stdout.trim() || undefined;
}

/** A worktree of the commit under `directory`, with this tree's dependencies where it asks for the same. */
export function checkOut(ref: string, directory: string): string {
  const path = join(directory, 'before-source');
  const { status, stderr } = git('worktree', 'add', '--detach', path, ref);
  if (status !== 0) throw new Error(`no worktree of ${ref}: ${stderr.trim()}`);
  const lock = (tree: string): string => readFileSync(join(tree, 'package-lock.json'), 'utf8');
  if (lock(path) === lock(root)) symlinkSync(join(root, 'node_modules'), join(path, 'node_modules'));
  return path;
}

export function removeWorktree(path: string): void {
  git('worktree', 'remove', '--force', path);
}

/** Of each figure that has a limit and that both have: `slower` is past it, and worse in every round than in any before. */
export function compare(results: readonly Result[]): Comparison[] {
  return results.flatMap(now => {
    const { scenario, metric } = now;
    const limit = limits[metric];
    const before = results.find(
      other => other.system === 'before' && other.scenario === scenario && other.metric === metric,
    );
    if (now.system !== 'millrace' || limit === undefined || !before) return [];
    const isMoreBetter = metrics[metric].better === 'more';
    const timesWorse = isMoreBetter ? before.median / now.median : now.median / before.median;
    const apart = isMoreBetter ? now.max < before.min : now.min > before.max;
    const verdict = timesWorse <= limit ? 'passed' : apart ? 'slower' : 'unclear';
    return [{ scenario, metric, before, now, limit, timesWorse, verdict }];
  });
}

/** A row for each, and the verdict over all. */
export function describe(comparisons: readonly Comparison[]): string {
  const words = { passed: '', unclear: 'past the limit, but the rounds overlap', slower: 'SLOWER' };
  const rows = comparisons.map(({ scenario, metric, before, now, limit, verdict }) => [
    scenario,
    `${metric}, ${metrics[metric].better} is better`,
    rounds(before),
    rounds(now),
    `${(now.median / before.median).toFixed(2)} ×`,
    `${(metrics[metric].better === 'more' ? 1 / limit : limit).toFixed(2)} ×`,
    words[verdict],
  ]);
  const table = [['scenario', 'figure', 'before', 'now', 'ratio', 'limit', ''], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map(row => row[column]!.length)));
  const lines = table.map(row =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
  return ['', ...lines, '', conclusion(comparisons)].join('\n');
}

function conclusion(comparisons: readonly Comparison[]): string {
  const count = (verdict: Comparison['verdict']): number =>
    comparisons.filter(comparison => comparison.verdict === verdict).length;
  const of = `of ${comparisons.length} figures`;
  if (count('slower') > 0) return `Slower: ${count('slower')} ${of} past the limit in every round.`;
  if (count('unclear') > 0)
    return `Not slower, but repeat it: ${count('unclear')} ${of} past the limit in some rounds.`;
  return `Not slower: all ${of} within their limits.`;
}

const rounds = ({ median, min, max }: Result): string => `${readable(median)} (${readable(min)}–${readable(max)})`;

function git(...args: string[]) {
  return spawnSync('git', args, { cwd: root, encoding: 'utf8' });
}
