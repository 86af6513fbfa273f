import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mirrorRounds } from './mirror-rounds.ts';
import { newSeed } from './random.ts';

test('the target has what the source has, whoever is killed meanwhile', { timeout: 300_000 }, async t => {
  const seed = newSeed();
  t.diagnostic(`seed ${seed}`);
  const records = await mirrorRounds({ seed, rounds: 3, into: 'millrace', say: line => t.diagnostic(line) });
  t.diagnostic(`${records} records`);
  assert.ok(records > 100n);
});
