// The short form; the long one is npm run crash:target.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDatabase } from '../database.ts';
import { newSeed } from './random.ts';
import { roundsIntoMillrace } from './target-rounds.ts';

test('a second Millrace holds what the tables hold, whoever is killed meanwhile', { timeout: 240_000 }, async t => {
  const database = await createDatabase();
  const seed = newSeed();
  t.diagnostic(`seed ${seed}`);
  try {
    const say = (line: string) => t.diagnostic(line);
    const changes = await roundsIntoMillrace({ database, seed, rounds: 4, clients: 2, say });
    t.diagnostic(`${changes} changes`);
    assert.ok(changes > 2000); // what it begins with is read alone
  } finally {
    await database.drop();
  }
});
