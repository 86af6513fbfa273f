import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Metric, Result } from './metrics.ts';
import { findScenarios } from './scenario.ts';
import { judge, targets } from './targets.ts';

function result(scenario: string, system: string, metric: Metric, median: number): Result {
  return { scenario, system, metric, unit: '', median, min: median, max: median };
}

test('every target names a scenario that there is', () => {
  for (const { scenario } of targets) assert.equal(findScenarios([scenario])[0]?.name, scenario);
});

test('a target is met, not met, or not measured where one of the two figures is missing', () => {
  const scenario = 'latency-5000-1KiB-1p-librdkafka';
  const verdicts = (...results: Result[]) =>
    judge(results)
      .filter(({ target }) => target.scenario === scenario)
      .map(({ verdict }) => verdict);
  assert.deepEqual(verdicts(), ['not measured', 'not measured', 'not measured']);
  const own = [result(scenario, 'millrace', 'p50_ms', 5), result(scenario, 'millrace', 'p99_ms', 11)];
  assert.deepEqual(verdicts(...own), ['not measured', 'not met', 'not measured']);
  const peers = [result(scenario, 'kafka', 'p50_ms', 3.5), result(scenario, 'kafka-flush', 'p99_ms', 20)];
  assert.deepEqual(verdicts(...own, ...peers), ['met', 'not met', 'met']);
});
