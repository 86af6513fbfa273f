import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newSeed } from './random.ts';
import { sinkRounds } from './sink-rounds.ts';

test('tables are what their topics say, whoever is killed meanwhile', { timeout: 300_000 }, async t => {
  const seed = newSeed();
  t.diagnostic(`seed ${seed}`);
  const { records, deadLetters } = await sinkRounds({ seed, rounds: 8, say: line => t.diagnostic(line) });
  t.diagnostic(`${records} records, ${deadLetters} dead letters`);
  assert.ok(records > 1000 && deadLetters > 0);
});
