import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Target } from './outlet.ts';
import { partitionOf } from './partitioner.ts';
import { hasRow, settle } from './snapshot-jobs.ts';

const key = Buffer.from('{"id":1}');
const partition = partitionOf(key, 0, key.length, 4);

test('a partition that stands at a range’s position or behind it has its rows; any other is given them again', () => {
  const stored = [0, 1, 2, 3].map(id => ({ commitLsn: id === partition ? 100n : 99n, ordinal: 2, partitionCount: 4 }));
  const at = (ordinal: number) => ({ until: ['9'], in: [], at: { commitLsn: 100n, ordinal } });
  const target = { stored } as unknown as Target;
  assert.deepEqual(settle(at(2), target), { until: ['9'], in: [[partition, 4]] });
  assert.deepEqual(settle(at(3), target), { until: ['9'], in: [] });
  assert.deepEqual(settle(at(0), undefined), { until: ['9'], in: [] });
  assert.equal(hasRow(settle(at(2), target), key), true);
  assert.equal(hasRow(settle(at(3), target), key), false);
});
