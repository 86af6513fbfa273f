import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Metric, median, type Result } from './metrics.ts';
import { compare, describe } from './regression.ts';

const result = (system: string, metric: Metric, rounds: readonly number[]): Result => ({
  scenario: 'a scenario',
  system,
  metric,
  unit: '',
  median: median(rounds),
  min: Math.min(...rounds),
  max: Math.max(...rounds),
});
const compared = (metric: Metric, before: readonly number[], now: readonly number[]) =>
  compare([result('millrace', metric, now), result('before', metric, before)]);
const verdict = (...of: Parameters<typeof compared>) => compared(...of)[0]!.verdict;

test('slower is past the limit, in every round', () => {
  assert.equal(verdict('records_per_s', [90, 100, 110], [80, 82, 85]), 'slower');
  assert.equal(verdict('records_per_s', [90, 100, 110], [80, 82, 91]), 'unclear');
  assert.equal(verdict('records_per_s', [98, 100, 102], [88, 89, 90]), 'passed');
  assert.equal(verdict('records_per_s', [90, 100, 110], [200, 210, 220]), 'passed');
  assert.equal(verdict('ack_p50_ms', [4, 5, 5.5], [6, 7, 8]), 'slower');
  assert.equal(verdict('ack_p50_ms', [4, 5, 6.5], [6, 7, 8]), 'unclear');
  assert.equal(verdict('ack_p50_ms', [4, 5, 6], [1, 2, 3]), 'passed');
  assert.equal(verdict('p99_ms', [4, 5, 6], [7, 8, 9]), 'passed');
});

test('what has no limit, or nothing to be compared with, is not judged', () => {
  assert.deepEqual(compared('rss_mb', [1], [9]), []);
  assert.deepEqual(compare([result('millrace', 'records_per_s', [1])]), []);
});

test('the last line is the verdict over all', () => {
  const last = (...of: Parameters<typeof compared>) =>
    describe(compared(...of))
      .split('\n')
      .at(-1)!;
  assert.match(last('records_per_s', [100], [50]), /^Slower: 1 of 1/);
  assert.match(last('records_per_s', [40, 100, 110], [50, 50, 50]), /^Not slower, but repeat it: 1 of 1/);
  assert.match(last('records_per_s', [100], [100]), /^Not slower: all of 1/);
});
