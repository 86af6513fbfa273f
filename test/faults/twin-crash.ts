// The long form of the twins' crash loop: npm run crash:twin -- [--rounds 50] [--seed N].
import { parseArgs } from 'node:util';
import { newSeed } from './random.ts';
import { twinRounds } from './twin-rounds.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string' }, seed: { type: 'string' } } });
const rounds = Number(values.rounds ?? 50);
const seed = Number(values.seed ?? newSeed());
console.log(`${rounds} rounds, seed ${seed}`);
const { statements, added, dropped, rows } = await twinRounds({ seed, rounds, say: line => console.log(line) });
console.log(
  `${statements} statements, ${added} columns added and ${dropped} dropped: ${rows} rows, as in the tables they were captured from`,
);
