import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BufferPool } from './buffer-pool.ts';

const KiB = 1024;

test('what is given back is taken again, and nothing is in two hands', () => {
  const pool = new BufferPool(1024 * KiB);
  const first = pool.take(100 * KiB);
  assert.equal(first.length, 100 * KiB);
  assert.notEqual(pool.take(100 * KiB).buffer, first.buffer);
  pool.give(first.subarray(10, 20));
  pool.give(first);
  assert.equal(pool.freeBytes, 128 * KiB);
  const again = pool.take(128 * KiB);
  assert.equal(again.buffer, first.buffer);
  assert.equal(pool.freeBytes, 0);
  pool.give(Buffer.alloc(100 * KiB)); // from elsewhere
  assert.equal(pool.freeBytes, 0);
});

test('past the bound, the size that was not asked for the longest makes way', () => {
  const pool = new BufferPool(512 * KiB);
  const small = Array.from({ length: 4 }, () => pool.take(128 * KiB));
  const large = pool.take(256 * KiB);
  for (const buffer of small) pool.give(buffer);
  assert.equal(pool.freeBytes, 512 * KiB);
  pool.give(large);
  assert.equal(pool.freeBytes, 512 * KiB);
  assert.equal(pool.take(256 * KiB).buffer, large.buffer);
  const kept = [pool.take(128 * KiB), pool.take(128 * KiB), pool.take(128 * KiB)].map(({ buffer }) => buffer);
  assert.equal(kept.filter(block => small.some(({ buffer }) => buffer === block)).length, 2);
});
