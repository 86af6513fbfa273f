import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Visibility } from './visibility.ts';

test('what had ended is seen; what was running or began later is not', () => {
  const seen = new Visibility('100:110:100,104');
  assert.deepEqual(
    [99, 100, 101, 104, 109, 110, 111].filter(xid => seen.sees(xid)),
    [99, 101, 109],
  );
  assert.equal(new Visibility('7:7:').sees(6), true);
  assert.equal(new Visibility('7:7:').sees(7), false);
});

test('ids go round after 2^32', () => {
  const seen = new Visibility('4294967290:4294967306:4294967300');
  assert.equal(seen.sees(4_294_967_295), true);
  assert.equal(seen.sees(3), true); // 4294967299
  assert.equal(seen.sees(4), false); // 4294967300
  assert.equal(seen.sees(10), false);
});
