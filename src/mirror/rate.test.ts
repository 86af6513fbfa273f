import assert from 'node:assert/strict';
import { test } from 'node:test';
import { paceOf, Rate } from './rate.ts';

test('the rate is that of the last minute, and tells how long is left', () => {
  const rate = new Rate();
  assert.equal(rate.recordsPerSecond, 0);
  for (let second = 0; second <= 60; second++) rate.sample(BigInt(second * 1000), second * 1000);
  assert.equal(rate.recordsPerSecond, 1000);
  for (let second = 61; second <= 130; second++) rate.sample(60_000n + BigInt((second - 60) * 10), second * 1000);
  assert.equal(rate.recordsPerSecond, 10, 'what is older is forgotten');
  assert.deepEqual(paceOf(95n, rate.recordsPerSecond), { recordsPerSecond: 10, secondsToGo: 10 });
  assert.deepEqual(paceOf(0n, 10), { recordsPerSecond: 10, secondsToGo: undefined });
  assert.deepEqual(paceOf(5n, 0), { recordsPerSecond: 0, secondsToGo: undefined });
  rate.sample(0n, 131_000);
  assert.equal(rate.recordsPerSecond, 0, 'a copy that was set back begins anew');
});
