// OffsetForLeaderEpoch, versions 2 to 4 (KIP-101, KIP-320): where the log of an epoch ends, so that a consumer notices
// that what it has read is no longer the log. Epochs are the broker's terms (kafka.leader_epochs).
import { ErrorCode } from '../../protocol/errors.ts';
import { OffsetForLeaderEpoch } from '../../protocol/messages/23-offset-for-leader-epoch.ts';
import { handler } from '../handler.ts';
import { leaderEpochProblem } from '../leader-epoch.ts';
import { storageFailure } from '../storage-failure.ts';

export const offsetForLeaderEpoch = handler(
  OffsetForLeaderEpoch,
  async (request, { broker }) => ({
    throttleTimeMs: 0,
    topics: await Promise.all(
      request.topics.map(async ({ topic: name, partitions }) => ({
        topic: name,
        partitions: await Promise.all(
          partitions.map(async ({ partition: index, currentLeaderEpoch, leaderEpoch }) => {
            const topic = broker.topics.get(name);
            const partition = topic && broker.log.partition(topic, index);
            const errorCode = partition
              ? leaderEpochProblem(currentLeaderEpoch, broker.log.epoch)
              : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
            if (!partition || errorCode !== ErrorCode.NONE) return { partition: index, errorCode };
            // Between two terms no epoch is known. "It is still to come" would cost a consumer its position.
            if (broker.log.epoch < 0) return { partition: index, errorCode: ErrorCode.LEADER_NOT_AVAILABLE };
            try {
              const end = await broker.log.epochEnd(partition, leaderEpoch);
              return { partition: index, errorCode, leaderEpoch: end.epoch, endOffset: end.offset };
            } catch (error) {
              return { partition: index, errorCode: storageFailure(error, name, index, broker.logger) };
            }
          }),
        ),
      })),
    ),
  }),
  [2, 4],
);
