import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ranges } from './ranges.ts';

test('a range that could not be noted goes once the next time, as it is then', () => {
  const ranges = new Ranges(undefined);
  ranges.add({ sourceOffset: 0n, count: 5 }, 10n);
  const taken = ranges.take();
  ranges.add({ sourceOffset: 5n, count: 5 }, 15n);
  ranges.add({ sourceOffset: 20n, count: 1 }, 20n);
  ranges.putBack(taken);
  assert.deepEqual(ranges.take(), [
    { sourceOffset: 0n, targetOffset: 10n, records: 10n },
    { sourceOffset: 20n, targetOffset: 20n, records: 1n },
  ]);
  ranges.putBack([{ sourceOffset: 0n, targetOffset: 10n, records: 10n }]);
  assert.equal(ranges.take().length, 1);
});
