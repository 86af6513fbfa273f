import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cutoverRounds } from './cutover-rounds.ts';
import { newSeed } from './random.ts';

test('cut over and back under producers, whoever is killed meanwhile: each record once and in order', {
  timeout: 300_000,
}, async t => {
  const seed = newSeed();
  t.diagnostic(`seed ${seed}`);
  const records = await cutoverRounds({ seed, rounds: 4, into: 'millrace', say: line => t.diagnostic(line) });
  t.diagnostic(`${records} records`);
  assert.ok(records > 100);
});
