// DeleteRecords, versions 0 to 2 (KIP-107). The log start moves at once, for SQL too; the bytes go when their whole
// segment lies before it. Offset -1 means the high watermark.
import { ErrorCode } from '../../protocol/errors.ts';
import { DeleteRecords } from '../../protocol/messages/21-delete-records.ts';
import { handler } from '../handler.ts';
import { storageFailure } from '../storage-failure.ts';

export const deleteRecords = handler(DeleteRecords, async (request, { broker }) => ({
  throttleTimeMs: 0,
  topics: await Promise.all(
    request.topics.map(async ({ name, partitions }) => ({
      name,
      partitions: await Promise.all(
        partitions.map(async ({ partitionIndex, offset }) => {
          const topic = broker.topics.get(name);
          const partition = topic && broker.log.partition(topic, partitionIndex);
          if (!partition) {
            return { partitionIndex, lowWatermark: -1n, errorCode: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION };
          }
          const before = offset === -1n ? partition.highWatermark : offset;
          if (before < 0n || before > partition.highWatermark) {
            return { partitionIndex, lowWatermark: -1n, errorCode: ErrorCode.OFFSET_OUT_OF_RANGE };
          }
          try {
            await broker.log.trim(partition, before);
          } catch (error) {
            const errorCode = storageFailure(error, name, partitionIndex, broker.logger);
            return { partitionIndex, lowWatermark: -1n, errorCode };
          }
          return { partitionIndex, lowWatermark: partition.logStartOffset, errorCode: ErrorCode.NONE };
        }),
      ),
    })),
  ),
}));
