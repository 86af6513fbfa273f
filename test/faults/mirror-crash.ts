// The long form of the mirrors' crash loops: npm run crash:mirror -- [--rounds 50] [--seed N] [--into millrace,kafka]
// [--from millrace,kafka]. Without either, all four; with --cutover, cut-overs into the targets and back.
import { parseArgs } from 'node:util';
import { kafkaIsMissing } from '../../compat/kafka/kafka.ts';
import { cutoverRounds } from './cutover-rounds.ts';
import { mirrorFromRounds } from './mirror-from-rounds.ts';
import { mirrorRounds } from './mirror-rounds.ts';
import { newSeed } from './random.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string' },
    seed: { type: 'string' },
    into: { type: 'string' },
    from: { type: 'string' },
    cutover: { type: 'boolean' },
  },
});
const rounds = Number(values.rounds ?? 50);
const seed = Number(values.seed ?? newSeed());
const say = (line: string): void => console.log(line);
const kindsGiven = values.into ?? values.from;

function* kinds(option: 'into' | 'from'): Iterable<'millrace' | 'kafka'> {
  const given = values[option] ?? (kindsGiven === undefined ? 'millrace,kafka' : '');
  for (const kind of given.split(',').filter(Boolean)) {
    if (kind !== 'millrace' && kind !== 'kafka') throw new Error(`--${option} ${kind}; give millrace, kafka or both`);
    const missing = kind === 'kafka' && kafkaIsMissing();
    if (missing) throw new Error(missing);
    console.log(`${rounds} rounds ${option} ${kind}, seed ${seed}`);
    yield kind;
  }
}

for (const into of kinds('into')) {
  const records = await (values.cutover ? cutoverRounds : mirrorRounds)({ seed, rounds, into, say });
  console.log(`${records} records, each in ${into} once, at its offset`);
}
for (const from of values.cutover ? [] : kinds('from')) {
  const records = await mirrorFromRounds({ seed, rounds, from, say });
  console.log(`${records} records, each out of ${from} here once, at its offset; the group has had each once`);
}
