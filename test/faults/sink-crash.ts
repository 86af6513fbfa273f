// The long form of the sinks' crash loop: npm run crash:sink -- [--rounds 50] [--seed N].
import { parseArgs } from 'node:util';
import { newSeed } from './random.ts';
import { sinkRounds } from './sink-rounds.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string' }, seed: { type: 'string' } } });
const rounds = Number(values.rounds ?? 50);
const seed = Number(values.seed ?? newSeed());
console.log(`${rounds} rounds, seed ${seed}`);
const { records, deadLetters } = await sinkRounds({ seed, rounds, say: line => console.log(line) });
console.log(`${records} records, each in its table once, ${deadLetters} in the dead letters`);
