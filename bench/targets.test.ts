import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findCaptureScenarios } from './capture/scenarios.ts';
import { findDeliveryScenarios } from './delivery/scenarios.ts';
import type { Metric, Result } from './metrics.ts';
import { findMirrorScenarios } from './mirror/scenarios.ts';
import { findScenarios } from './scenario.ts';
import { findSinkScenarios } from './sink/scenarios.ts';
import { judge, targets } from './targets.ts';

function result(scenario: string, system: string, metric: Metric, median: number): Result {
  return { scenario, system, metric, unit: '', median, min: median, max: median };
}

test('every target names a scenario that there is', () => {
  for (const { scenario } of targets) {
    const asked = [scenario];
    const elsewhere = [findCaptureScenarios, findSinkScenarios, findDeliveryScenarios, findMirrorScenarios];
    const matches = elsewhere.flatMap(find => find(asked) as { name: string }[]);
    const [found] = matches.length > 0 ? matches : findScenarios(asked);
    assert.equal(found?.name, scenario);
  }
});

test('a figure may be that of another system than millrace', () => {
  const of = (system: string, median: number) => result('backlog-insert', system, 'changes_per_s', median);
  const verdicts = judge([
    of('millrace', 250),
    of('millrace-plain', 290),
    of('debezium', 100),
    of('pg_recvlogical', 500),
  ])
    .filter(({ target }) => target.scenario === 'backlog-insert')
    .map(({ value, verdict }) => [value, verdict]);
  assert.deepEqual(verdicts, [
    [2.5, 'met'],
    [2.9, 'not met'],
    [0.5, 'met'],
  ]);
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
