// The long form of the replay: npm run replay:capture -- [--transactions 100000] [--clients 16] [--scale 1] [--seed N]
// [--pgbench /path/to/pgbench], on the database server of MILLRACE_TEST_DATABASE_URL.
import { parseArgs } from 'node:util';
import { replayCapture } from './capture-replay.ts';
import { newSeed } from './random.ts';

const { values } = parseArgs({
  options: {
    transactions: { type: 'string', default: '100000' },
    clients: { type: 'string', default: '16' },
    scale: { type: 'string', default: '1' },
    seed: { type: 'string', default: String(newSeed()) },
    pgbench: { type: 'string' },
  },
});
const transactions = Number(values.transactions);
const clients = Number(values.clients);
const accounts = Number(values.scale) * 100_000;
const seed = Number(values.seed);
const { pgbench } = values;
console.log(
  `${transactions} transactions, ${clients} clients, ${accounts} accounts, seed ${seed}, ${pgbench ?? 'our own client'}`,
);
const began = Date.now();
const say = (line: string) => console.log(`${((Date.now() - began) / 1000).toFixed(1)} s  ${line}`);
const { faults, events } = await replayCapture({ seed, transactions, clients, accounts, pgbench, calmMs: 8000, say });
console.log(`${events} events replayed over ${faults} faults: the same checksums`);
