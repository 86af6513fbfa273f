import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Throttle } from './throttle.ts';

test('what several spend is waited for by whoever spends next; time in which nobody did is not saved up', () => {
  let now = 50_000;
  const throttle = new Throttle({ rowsPerSecond: 1000, bytesPerSecond: undefined }, () => now);
  assert.equal(throttle.spend(500, 1e9), 500);
  assert.equal(throttle.spend(250, 1e9), 750);
  now += 10_000;
  assert.equal(throttle.spend(100, 1e9), 100);
});

test('the tighter of two limits holds', () => {
  const throttle = new Throttle({ rowsPerSecond: 1000, bytesPerSecond: 1_000_000 }, () => 0);
  assert.equal(throttle.spend(10, 2_000_000), 2000);
  assert.equal(throttle.spend(1000, 10), 3000);
});

test('a chunk is a second’s worth at most, and a row at least', () => {
  const share = (rowsPerSecond: number | undefined) => new Throttle({ rowsPerSecond, bytesPerSecond: 1 }).share(10_000);
  assert.deepEqual([share(undefined), share(1e6), share(700), share(0.5)], [10_000, 10_000, 700, 1]);
});

test('without limits nothing waits', () => {
  const throttle = new Throttle({ rowsPerSecond: undefined, bytesPerSecond: undefined });
  assert.equal(throttle.spend(1e9, 1e12), 0);
});
