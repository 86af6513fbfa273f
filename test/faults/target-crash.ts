// The long form of the crash loop into a remote cluster: npm run crash:target -- [--rounds 50] [--seed N] [--clients 2]
// [--into millrace,kafka]. What is captured is in a PostgreSQL of its own, which crashes as well, of the version of
// MILLRACE_TEST_DATABASE_URL; the second Millrace's log is on that server.
import { parseArgs } from 'node:util';
import { kafkaIsMissing } from '../../compat/kafka/kafka.ts';
import { openPool } from '../../src/postgres/pool.ts';
import { startPostgres } from '../own-postgres.ts';
import { newSeed } from './random.ts';
import type { RoundsInto } from './target-rounds.ts';
import { roundsIntoKafka, roundsIntoMillrace } from './target-rounds.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string' },
    seed: { type: 'string' },
    clients: { type: 'string' },
    into: { type: 'string' },
  },
});
const rounds = Number(values.rounds ?? 50);
const seed = Number(values.seed ?? newSeed());
const clients = Number(values.clients ?? 2);
const drills: Readonly<Record<string, (into: RoundsInto) => Promise<number>>> = {
  millrace: roundsIntoMillrace,
  kafka: roundsIntoKafka,
};

for (const name of (values.into ?? 'millrace,kafka').split(',')) {
  const drill = drills[name];
  if (drill === undefined) throw new Error(`--into ${name}; give millrace, kafka or both`);
  const missing = name === 'kafka' && kafkaIsMissing();
  if (missing) throw new Error(missing);
  console.log(`${rounds} rounds into ${name}, ${clients} clients, seed ${seed}`);
  const postgres = await startPostgres({});
  const pool = openPool(postgres.url, { max: 10, applicationName: 'millrace test' });
  try {
    const changes = await drill({
      database: { url: postgres.url, pool, drop: async () => {} },
      ...{ seed, rounds, clients, say: line => console.log(line) },
      async strikePostgres() {
        await postgres.stop(true);
        await postgres.start();
      },
    });
    console.log(`${changes} changes, each in ${name} once and in order`);
  } finally {
    await pool.end();
    await postgres.remove();
  }
}
