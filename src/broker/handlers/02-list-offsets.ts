// ListOffsets, versions 1 to 11: latest (-1), earliest (-2), the offset with the newest timestamp (-3, KIP-734), earliest
// local (-4, the log start: nothing is tiered), latest tiered (-5, none), or the first record of a timestamp or later.
// There are no open transactions, so read_committed and read_uncommitted agree. A partition whose primary is elsewhere may
// refuse with NOT_LEADER_OR_FOLLOWER (mirrors, `reads: redirect`).
import { CompressionError } from '../../protocol/compression.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { ListOffsets } from '../../protocol/messages/02-list-offsets.ts';
import { WireError } from '../../protocol/wire.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import type { RequestContext } from '../context.ts';
import { handler } from '../handler.ts';
import { leaderEpochProblem } from '../leader-epoch.ts';
import { repeatedIn } from '../repeated.ts';
import { type Found, firstRecordSince, newestRecord } from '../timestamp-lookup.ts';

const latest = -1n;
const earliest = -2n;
const newestTimestamp = -3n;
const earliestLocal = -4n;
const latestTiered = -5n;

const partitionKey = (topic: string, partition: number): string => `${topic}\0${partition}`;

export const listOffsets = handler(
  ListOffsets,
  async (request, context) => {
    // As in Kafka; and so one request asks Postgres no more often than there are partitions.
    const repeated = repeatedIn(
      request.topics.flatMap(({ name, partitions }) =>
        partitions.map(({ partitionIndex }) => partitionKey(name, partitionIndex)),
      ),
      key => key,
    );
    const topics = await Promise.all(
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
            if (partition.refusesReads) return { partitionIndex, errorCode: ErrorCode.NOT_LEADER_OR_FOLLOWER };
            if (repeated.has(partitionKey(name, partitionIndex)))
              return { partitionIndex, errorCode: ErrorCode.INVALID_REQUEST };
            if (timestamp < latestTiered) return { partitionIndex, errorCode: ErrorCode.UNSUPPORTED_VERSION };
            try {
              return { partitionIndex, errorCode, ...(await find(partition, timestamp, context)) };
            } catch (error) {
              // Stored bytes that are no records are their producer's fault: no failure here, nor a bad request.
              const corrupt = error instanceof WireError || error instanceof CompressionError;
              context.broker.logger[corrupt ? 'warn' : 'error'](
                { err: error, topic: name, partitionIndex },
                'an offset was not found',
              );
              return { partitionIndex, errorCode: corrupt ? ErrorCode.CORRUPT_MESSAGE : ErrorCode.KAFKA_STORAGE_ERROR };
            }
          }),
        ),
      })),
    );
    return { throttleTimeMs: 0, topics };
  },
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
      ? await newestRecord(broker, partition)
      : timestamp >= 0n
        ? await firstRecordSince(broker, partition, timestamp)
        : undefined;
  return found ?? { offset: -1n, timestamp: -1n, leaderEpoch: -1 };
}
