import assert from 'node:assert/strict';
import { test } from 'node:test';
import { replayCapture } from './capture-replay.ts';
import { newSeed } from './random.ts';

test('pgbench’s tables, captured and replayed, have the same checksums', { timeout: 300_000 }, async t => {
  const seed = newSeed();
  t.diagnostic(`seed ${seed}`);
  const say = (line: string) => t.diagnostic(line);
  const { faults, events } = await replayCapture({
    seed,
    transactions: 3000,
    clients: 4,
    accounts: 20_000,
    calmMs: 2000,
    say,
  });
  assert.ok(faults >= 2 && events > 20_000, `${faults} faults, ${events} events`);
});
