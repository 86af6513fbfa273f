import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDatabase } from '../database.ts';
import { captureRounds } from './capture-rounds.ts';
import { newSeed } from './random.ts';

test('pgbench’s tables are what was captured of them, whoever is killed meanwhile', { timeout: 300_000 }, async t => {
  const database = await createDatabase();
  const seed = newSeed();
  t.diagnostic(`seed ${seed}`);
  try {
    const changes = await captureRounds({ database, seed, rounds: 8, clients: 3 });
    t.diagnostic(`${changes} changes`);
    assert.ok(changes > 100);
  } finally {
    await database.drop();
  }
});
