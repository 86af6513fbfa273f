import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mirrorFromRounds } from './mirror-from-rounds.ts';
import { newSeed } from './random.ts';

test('what is mirrored into Millrace is there once, whoever is killed, and a group moves over', {
  timeout: 300_000,
}, async t => {
  const seed = newSeed();
  t.diagnostic(`seed ${seed}`);
  const records = await mirrorFromRounds({ seed, rounds: 2, from: 'millrace', say: line => t.diagnostic(line) });
  t.diagnostic(`${records} records`);
  assert.ok(records > 100n);
});
