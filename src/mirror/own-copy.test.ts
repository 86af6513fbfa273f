import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BufferPool } from '../runtime/buffer-pool.ts';
import { OwnCopy } from './own-copy.ts';

test('the memory of a copy is used again once nobody holds it, and not before', () => {
  const memory = new BufferPool(2 ** 20);
  const read = Buffer.alloc(65_536, 'a');
  const copy = new OwnCopy(memory, read);
  assert.deepEqual(copy.bytes, read);
  copy.bytes.fill('b');
  assert.equal(read[0], 'a'.charCodeAt(0));
  copy.hold();
  copy.release();
  assert.equal(memory.freeBytes, 0);
  copy.release();
  assert.equal(memory.freeBytes, 65_536);
});
