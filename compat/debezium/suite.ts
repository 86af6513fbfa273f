// The differ: what Debezium's connector and a capture of Millrace make of the same changes, event for event and field for
// field. It starts a PostgreSQL and a Millrace of its own, whatever address it is given; DIFFER_SEED and
// DIFFER_TRANSACTIONS are those of its random part. What may differ is in deviations.ts, and in docs/capture.md.
import { runSuite } from '../suite.ts';
import { type Captured, captureBoth, type Way } from './captures.ts';
import { compare, type Difference, describe } from './comparison.ts';
import { debeziumIsMissing } from './debezium.ts';
import { deviations } from './deviations.ts';
import { knownCases, randomTransactions, schemaSql } from './workload.ts';

const seed = Number(process.env.DIFFER_SEED ?? Date.now() % 1_000_000);
const transactions = Number(process.env.DIFFER_TRANSACTIONS ?? 200);
const shownDifferences = 40;

const ways: readonly Way[] = [
  {
    name: 'bare',
    definition: {},
    properties: { 'key.converter.schemas.enable': 'false', 'value.converter.schemas.enable': 'false' },
  },
  {
    name: 'schemas',
    definition: { schemas: true, transactionMetadata: true },
    properties: { 'provide.transaction.metadata': 'true' },
  },
];

function* changes(): Generator<string> {
  yield* knownCases();
  yield* randomTransactions(seed, transactions);
}

const wayOf = ({ topic, operation, path }: Difference): string =>
  `${topic} ${operation} ${path.replaceAll(/\.\d+/g, '.*')}`;

const met = new Set<string>();
let captured: Promise<Map<string, Captured>> | undefined;

async function check(name: string): Promise<void> {
  captured ??= captureBoth(ways, schemaSql, changes());
  const { debezium, millrace } = (await captured).get(name)!;
  const comparison = compare(debezium, millrace, deviations);
  for (const deviation of comparison.met) met.add(deviation);
  console.log(`# ${comparison.events} events, seed ${seed}`);
  const { differences } = comparison;
  if (differences.length === 0) return;
  const unlike = new Map(differences.map(difference => [wayOf(difference), difference]));
  for (const difference of [...unlike.values()].slice(0, shownDifferences)) console.log(`# ${describe(difference)}`);
  throw new Error(`${differences.length} fields differ, in ${unlike.size} ways (seed ${seed})`);
}

const missing = debeziumIsMissing();
const skip = missing === undefined ? {} : { skip: missing };
await runSuite(
  [
    { name: 'events without schemas are Debezium’s', run: () => check('bare'), ...skip },
    { name: 'events with schemas, and transactions, are Debezium’s', run: () => check('schemas'), ...skip },
    {
      name: 'every deviation that is allowed is met',
      run: async () => {
        const idle = deviations.filter(({ name }) => !met.has(name)).map(({ name }) => name);
        if (idle.length > 0)
          throw new Error(`no longer needed in deviations.ts and docs/capture.md: ${idle.join('; ')}`);
      },
      ...skip,
    },
  ],
  300_000,
);
