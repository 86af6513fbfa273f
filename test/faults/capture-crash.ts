// The long form of the captures' crash loop: npm run crash:capture -- [--rounds 100] [--seed N] [--clients 4], on the
// database server of MILLRACE_TEST_DATABASE_URL.
import { parseArgs } from 'node:util';
import { createDatabase } from '../database.ts';
import { captureRounds } from './capture-rounds.ts';
import { newSeed } from './random.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string' }, seed: { type: 'string' }, clients: { type: 'string' } },
});
const rounds = Number(values.rounds ?? 100);
const seed = Number(values.seed ?? newSeed());
const clients = Number(values.clients ?? 4);
console.log(`${rounds} rounds, ${clients} clients, seed ${seed}`);
const database = await createDatabase();
try {
  const changes = await captureRounds({ database, seed, rounds, clients, say: line => console.log(line) });
  console.log(`${changes} changes, each captured once and in order`);
} finally {
  await database.drop();
}
