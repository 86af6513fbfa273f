// How long single Fetch requests take at offsets here and there in a topic's partition 0, one after the other, by
// @platformatic/kafka in a process of its own. Offsets are spread evenly over from..to, so that no two are near each other
// where the topic is large enough, and read in a random order; the same seed gives the same ones. A Fetch brings one batch
// at least, and 64 KiB at most where that is more. With cold=DIR that directory's files are dropped from the page cache
// again and again. node --import tsx random-reads.ts name=value…, prints one JSON object.
import { Consumer } from '@platformatic/kafka';
import { percentiles } from '../metrics.ts';
import { evict } from './librdkafka.ts';

/** At the end of the log, where nothing that is measured lies: until the connection is open and the code compiled. */
const warmUps = 50;
const maxBytes = 65_536;
/** Read-ahead brings much more than what was asked for: before so many reads it is dropped again. */
const readsBetweenEvictions = 10;

const values = new Map(process.argv.slice(2).map(word => word.split(/=(.*)/s) as [string, string]));
const number = (name: string): number => Number(values.get(name));
const topic = values.get('topic')!;
const from = number('from');
const to = number('to');
const count = number('count');
const coldDirectory = values.get('cold');

const consumer = new Consumer({
  clientId: 'millrace-bench',
  groupId: 'millrace-bench',
  bootstrapBrokers: [values.get('bootstrap')!],
  retries: 0,
});
const metadata = await consumer.metadata({ topics: [topic] });
const { id: topicId, partitions } = metadata.topics.get(topic)!;
const node = partitions[0]!.leader;

/** Milliseconds until the batch that holds the offset is there. */
async function read(offset: number): Promise<number> {
  const begun = performance.now();
  const wanted = { partition: 0, currentLeaderEpoch: -1, fetchOffset: BigInt(offset), lastFetchedEpoch: -1 };
  const { responses } = await consumer.fetch({
    node,
    maxWaitTime: 500,
    minBytes: 1,
    maxBytes,
    topics: [{ topicId, partitions: [{ ...wanted, partitionMaxBytes: maxBytes }] }],
  });
  const took = performance.now() - begun;
  const answer = responses[0]?.partitions[0];
  const batch = answer?.records?.[0];
  if (!batch || batch.firstOffset > offset || batch.firstOffset + BigInt(batch.lastOffsetDelta) < offset) {
    throw new Error(`offset ${offset} was not read: error ${answer?.errorCode}, batch at ${batch?.firstOffset}`);
  }
  return took;
}

function spreadOffsets(): number[] {
  const random = seeded(number('seed'));
  const stride = (to - from) / count;
  const offsets = Array.from({ length: count }, (_, i) => Math.floor(from + (i + random()) * stride));
  const order = offsets.map(offset => [random(), offset] as const).sort(([a], [b]) => a - b);
  return order.map(([, offset]) => offset);
}

/** Between 0 and 1, the same for the same seed (a linear congruential generator, modulus 2 ** 32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

for (let i = 0; i < warmUps; i++) await read(to - 1);
const took: number[] = [];
for (const offset of spreadOffsets()) {
  if (coldDirectory && took.length % readsBetweenEvictions === 0) await evict(coldDirectory);
  took.push(await read(offset));
}
console.log(JSON.stringify(percentiles(took)));
await consumer.close();
