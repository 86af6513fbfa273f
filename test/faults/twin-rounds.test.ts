import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newSeed } from './random.ts';
import { twinRounds } from './twin-rounds.ts';

test('tables and their twins are equal, whatever is changed in them and whoever is killed meanwhile', {
  timeout: 600_000,
}, async t => {
  const seed = newSeed();
  t.diagnostic(`seed ${seed}`);
  const faults = ['broker', 'postgres'] as const;
  const { statements, rows } = await twinRounds({
    seed,
    rounds: faults.length,
    faults,
    say: line => t.diagnostic(line),
  });
  t.diagnostic(`${statements} statements, ${rows} rows`);
  assert.ok(statements > 5 && rows > 0);
});
