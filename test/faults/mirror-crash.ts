// The long form of the mirrors' crash loop: npm run crash:mirror -- [--rounds 50] [--seed N] [--into millrace,kafka].
import { parseArgs } from 'node:util';
import { kafkaIsMissing } from '../../compat/kafka/kafka.ts';
import { mirrorRounds } from './mirror-rounds.ts';
import { newSeed } from './random.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string' }, seed: { type: 'string' }, into: { type: 'string' } },
});
const rounds = Number(values.rounds ?? 50);
const seed = Number(values.seed ?? newSeed());

for (const into of (values.into ?? 'millrace,kafka').split(',')) {
  if (into !== 'millrace' && into !== 'kafka') throw new Error(`--into ${into}; give millrace, kafka or both`);
  const missing = into === 'kafka' && kafkaIsMissing();
  if (missing) throw new Error(missing);
  console.log(`${rounds} rounds into ${into}, seed ${seed}`);
  const records = await mirrorRounds({ seed, rounds, into, say: line => console.log(line) });
  console.log(`${records} records, each in ${into} once, at its offset`);
}
