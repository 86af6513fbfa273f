import assert from 'node:assert/strict';
import test from 'node:test';
import { ErrorCode, errorOf, protocolErrors } from './errors.ts';

test('the codes run from -1 to 133 without a gap', () => {
  assert.deepEqual(
    protocolErrors.map(({ code }) => code).sort((a, b) => a - b),
    Array.from({ length: 135 }, (_, i) => i - 1),
  );
});

test('a code is described, and an unknown one is an unknown server error', () => {
  assert.equal(errorOf(ErrorCode.NOT_LEADER_OR_FOLLOWER).name, 'NOT_LEADER_OR_FOLLOWER');
  assert.ok(errorOf(ErrorCode.NOT_LEADER_OR_FOLLOWER).retriable);
  assert.equal(errorOf(999).code, ErrorCode.UNKNOWN_SERVER_ERROR);
});
