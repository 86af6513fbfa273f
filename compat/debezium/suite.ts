// The differ: what Debezium's connector and a capture of Millrace make of the same changes, event for event and field for
// field. It starts a PostgreSQL and a Millrace of its own, whatever address it is given; DIFFER_SEED and
// DIFFER_TRANSACTIONS are those of its random part: the same each time unless another seed is given. What may differ is in deviations.ts, and in docs/capture.md.
import { runSuite } from '../suite.ts';
import { type Captured, captureBoth, type Way } from './captures.ts';
import { compare, type Difference, describe } from './comparison.ts';
import { debeziumIsMissing } from './debezium.ts';
import { deviations } from './deviations.ts';
import { knownCases, randomTransactions, rowsOfBefore, schemaSql } from './workload.ts';

const seed = Number(process.env.DIFFER_SEED ?? 847_372);
const transactions = Number(process.env.DIFFER_TRANSACTIONS ?? 200);
const shownDifferences = 40;

/** Those of a row are captured at the same time. */
const streamedWays: readonly Way[][] = [
  [
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
  ],
  [
    {
      name: 'texts',
      definition: { schemas: true, decimals: 'string', binary: 'hex' },
      properties: { 'decimal.handling.mode': 'string', 'binary.handling.mode': 'hex' },
    },
    {
      name: 'doubles',
      definition: { schemas: true, decimals: 'double', binary: 'base64-url-safe' },
      properties: { 'decimal.handling.mode': 'double', 'binary.handling.mode': 'base64-url-safe' },
    },
  ],
];

const read: Way = {
  name: 'read',
  definition: { snapshot: 'initial', schemas: true },
  properties: { 'snapshot.mode': 'initial' },
};

function* changes(): Generator<string> {
  yield* knownCases();
  yield* randomTransactions(seed, transactions);
}

const wayOf = ({ topic, operation, path }: Difference): string =>
  `${topic} ${operation} ${path.replaceAll(/\.\d+/g, '.*')}`;

const met = new Set<string>();
const streamed = new Map<readonly Way[], Promise<Map<string, Captured>>>();

async function checkStreamed(name: string): Promise<void> {
  const ways = streamedWays.find(row => row.some(way => way.name === name))!;
  const captured = streamed.get(ways) ?? captureBoth(ways, schemaSql, changes());
  streamed.set(ways, captured);
  check((await captured).get(name)!);
}

async function checkRead(): Promise<void> {
  const captured = await captureBoth([read], [...schemaSql, ...rowsOfBefore()], []);
  check(captured.get(read.name)!);
}

function check({ debezium, millrace }: Captured): void {
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
    { name: 'events without schemas are Debezium’s', run: () => checkStreamed('bare'), ...skip },
    { name: 'events with schemas, and transactions, are Debezium’s', run: () => checkStreamed('schemas'), ...skip },
    { name: 'decimals as strings and bytea in hex are Debezium’s', run: () => checkStreamed('texts'), ...skip },
    {
      name: 'decimals as doubles and bytea in base64 for URLs are Debezium’s',
      run: () => checkStreamed('doubles'),
      ...skip,
    },
    { name: 'rows that are read are Debezium’s', run: checkRead, ...skip },
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
  900_000,
);
