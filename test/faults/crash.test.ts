// The short form of the crash loop; `npm run crash -- --rounds 50` is the long one.
import { test } from 'node:test';
import { runCrashRounds } from './crash-rounds.ts';
import { newSeed } from './random.ts';

test('every acknowledged record survives kill -9 of the broker and of PostgreSQL, once and in order', async t => {
  const rounds = Number(process.env.MILLRACE_CRASH_ROUNDS ?? 5);
  await runCrashRounds({ rounds, seed: newSeed(), say: line => t.diagnostic(line) });
});
