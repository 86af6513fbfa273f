// DescribeLogDirs, versions 0 to 5 (KIP-113): one log directory, called postgres, and what each partition holds in it.
// A partition's size is exact for what is sealed; the rest is its share of a table. Volume sizes are unknown (-1).
// When Postgres does not answer, the directory is told to be offline.
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeLogDirs } from '../../protocol/messages/35-describe-log-dirs.ts';
import { partitionSizes, type StoredSizes } from '../../storage/topic-sizes.ts';
import type { Topic } from '../../storage/topics.ts';
import type { BrokerContext } from '../context.ts';
import { handler } from '../handler.ts';

const logDir = 'postgres';

export const describeLogDirs = handler(DescribeLogDirs, async (request, { broker }) => {
  let sizes: StoredSizes;
  try {
    sizes = await broker.topics.sizes.read();
  } catch (error) {
    broker.logger.error({ err: error }, 'the sizes of partitions could not be read');
    return { results: [{ errorCode: ErrorCode.KAFKA_STORAGE_ERROR, logDir, topics: [] }] };
  }
  const wanted = new Map<Topic, Set<number> | undefined>();
  if (request.topics === null) {
    for (const topic of broker.topics.all()) wanted.set(topic, undefined);
  } else {
    for (const { topic: name, partitions } of request.topics) {
      const topic = broker.topics.get(name);
      if (topic === undefined) continue;
      const asked = wanted.get(topic) ?? new Set();
      for (const partition of partitions) asked.add(partition);
      wanted.set(topic, asked);
    }
  }
  const topics = Array.from(wanted, ([topic, partitions]) => ({
    name: topic.name,
    partitions: sizesOf(topic, sizes, broker).filter(({ partitionIndex }) => partitions?.has(partitionIndex) ?? true),
  })).filter(({ partitions }) => partitions.length > 0);
  return { results: [{ errorCode: ErrorCode.NONE, logDir, topics }] };
});

function sizesOf(topic: Topic, sizes: StoredSizes, { log }: BrokerContext) {
  const extents = Array.from(
    { length: topic.partitionCount },
    (_, partition) => log.partition(topic, partition) ?? { logStartOffset: 0n, highWatermark: 0n },
  );
  return partitionSizes(sizes, topic.id, extents).map((partitionSize, partitionIndex) => ({
    partitionIndex,
    partitionSize,
    offsetLag: 0n,
    isFutureKey: false,
  }));
}
