// ListOffsets, versions 1 to 11: latest (-1), earliest (-2), the offset with the newest timestamp (-3, KIP-734), earliest
// local (-4, the log start: nothing is tiered), latest tiered (-5, none), or the first record of a timestamp or later.
// There are no open transactions, so read_committed and read_uncommitted agree.
import { ErrorCode } from '../../protocol/errors.ts';
import { ListOffsets } from '../../protocol/messages/02-list-offsets.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import type { RequestContext } from '../context.ts';
import { handler } from '../handler.ts';
import { leaderEpochProblem } from '../leader-epoch.ts';
import { type Found, firstRecordSince, newestRecord } from '../timestamp-lookup.ts';

const latest = -1n;
const earliest = -2n;
const newestTimestamp = -3n;
const earliestLocal = -4n;
const latestTiered = -5n;

export const listOffsets = handler(
  ListOffsets,
  async (request, context) => ({
    throttleTimeMs: 0,
    topics: await Promise.all(
      request.topics.map(async ({ name, partitions }) => ({
        name,
        partitions: await Promise.all(
          partitions.map(async ({ partitionIndex, currentLeaderEpoch, timestamp }) => {
            const topic = context.broker.topics.get(name);
            const partition = topic && context.broker.log.partition(topic, partitionIndex);
            const errorCode = partition
              ? leaderEpochProblem(currentLeaderEpoch, context.broker.log.epoch)
              : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
            if (!partition || errorCode !== ErrorCode.NONE) return { partitionIndex, errorCode };
            if (timestamp < latestTiered) return { partitionIndex, errorCode: ErrorCode.UNSUPPORTED_VERSION };
            const found = await find(partition, timestamp, context);
            return { partitionIndex, errorCode, ...found };
          }),
        ),
      })),
    ),
  }),
  [1, 11],
);

async function find(
  partition: PartitionLog,
  timestamp: bigint,
  { broker, apiVersion }: RequestContext,
): Promise<Found> {
  const leaderEpoch = broker.log.epoch;
  // Kafka tells a timestamp only where it looked one up.
  if (timestamp === latest) return { offset: partition.highWatermark, timestamp: -1n, leaderEpoch };
  if (timestamp === earliest || (timestamp === earliestLocal && apiVersion >= 8)) {
    return { offset: partition.logStartOffset, timestamp: -1n, leaderEpoch };
  }
  const found =
    timestamp === newestTimestamp
      ? await newestRecord(broker.log, partition)
      : timestamp >= 0n
        ? await firstRecordSince(broker.log, partition, timestamp)
        : undefined;
  return found ?? { offset: -1n, timestamp: -1n, leaderEpoch: -1 };
}
