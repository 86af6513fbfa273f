// `millrace compare NAME`: holds a mirror's source against its target, over Kafka's protocol on both sides. What is where it
// asks of the running Millrace over HTTP; secrets of the other cluster are looked up here, by the same references.
import { parseArgs } from 'node:util';
import { Cluster } from '../client/cluster.ts';
import { compareMirror, type Difference, type ToldPartition, type ToldRange } from '../mirror/compare.ts';
import { readDefinition } from '../mirror/definition.ts';
import { messageOf } from '../runtime/errors.ts';
import { ask, bad, print } from './http-api.ts';

interface Told {
  readonly definition: unknown;
  readonly lag: number;
  readonly partitions: readonly (ToldPartition & { readonly lag: number; readonly failed: number })[];
}

export const compareHelp = `Usage: millrace compare NAME [--http HOST:PORT] [--source HOST:PORT] [--topic NAME] [--most N]

Compares what the mirror NAME has copied with what the target holds, record by record, and prints each that differs with its
offsets and digests. Ends with 0 where nothing differs, and with 1 otherwise.

  --http    of the running Millrace; 127.0.0.1:8080
  --source  its Kafka address, also of a mirror into it; 127.0.0.1:9092
  --topic   one topic only
  --most    differences that are printed; 100
`;

/** Resolves to the exit code. Throws an OperationalError where it cannot be done. */
export async function compare(argv: readonly string[]): Promise<number> {
  const given = read(argv);
  const [name] = given.positionals;
  if (name === undefined || given.positionals.length > 1) throw bad('it is not said which mirror', 'give its name');
  const { http, source, topic } = given.values;
  const base = `http://${http}/api/mirrors/${encodeURIComponent(name)}`;
  // In this order: what is copied meanwhile is in the ranges, or is not compared.
  const { definition: written, partitions: all } = await ask<Told>(base);
  const ranges = await ask<ToldRange[]>(`${base}/offsets`);
  const partitions = all.filter(partition => topic === undefined || partition.topic === topic);
  if (partitions.length === 0) throw bad(`mirror ${name} copies nothing of that at the moment`, 'resume it first');
  const definition = readDefinition(name, written, { references: { env: process.env, cwd: process.cwd() } });
  const { bootstrap, tls, sasl } = definition.source ?? definition.target;
  const colon = source.lastIndexOf(':');
  const here = { host: source.slice(0, colon), port: Number(source.slice(colon + 1)) };
  const ours = new Cluster({ bootstrap: [here], clientId: 'millrace-compare' });
  const theirs = new Cluster({ bootstrap, tls, sasl, clientId: 'millrace-compare' });
  const clusters = definition.source ? { source: theirs, target: ours } : { source: ours, target: theirs };
  const began = Date.now();
  let left = Number(given.values.most);
  try {
    const { records, differences, foreign } = await compareMirror({
      ...clusters,
      partitions,
      ranges,
      onDifference: difference => {
        if (left-- > 0) print(lineOf(difference));
      },
      onPartition: (of, compared) => {
        const told = `${of.topic}-${of.partition} = ${of.targetTopic}-${of.partition}`;
        print(
          `${told}: ${compared.records} same, ${compared.differences} differ, ${compared.foreign} not the mirror’s`,
        );
      },
    });
    const lag = partitions.reduce((sum, partition) => sum + partition.lag, 0);
    const failed = partitions.reduce((sum, partition) => sum + partition.failed, 0);
    const seconds = Math.max(0.001, (Date.now() - began) / 1000);
    print(
      `${records} records are the same, ${differences} differ, ${foreign} in the target are not the mirror’s; ${lag} were not copied yet, ${failed} had been refused; ${seconds.toFixed(1)} s, ${Math.round(Number(records) / seconds)} records/s`,
    );
    return differences > 0n || foreign > 0n ? 1 : 0;
  } finally {
    ours.close();
    theirs.close();
  }
}

function read(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        http: { type: 'string', default: '127.0.0.1:8080' },
        source: { type: 'string', default: '127.0.0.1:9092' },
        topic: { type: 'string' },
        most: { type: 'string', default: '100' },
      },
    });
  } catch (error) {
    throw bad(messageOf(error), 'see: millrace compare --help');
  }
}

function lineOf({
  topic,
  partition,
  kind,
  sourceOffset,
  targetOffset,
  sourceDigest,
  targetDigest,
}: Difference): string {
  const at = `${topic}-${partition}`;
  if (kind === 'foreign') return `${at}: the target has ${targetDigest} at ${targetOffset}, which is not the mirror’s`;
  if (kind === 'missing') return `${at}@${sourceOffset} ${sourceDigest}: not in the target at ${targetOffset}`;
  return `${at}@${sourceOffset} ${sourceDigest}: the target has ${targetDigest} at ${targetOffset}`;
}
