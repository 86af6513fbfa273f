// What a producer's batch must be to enter the log, with the error a Kafka broker gives where it is not (Kafka's
// ProduceRequest.validateRecords and LogValidator), and the form in which it is stored.
import { CompressionError, codecNumber, RecordCountError, recompress } from '../protocol/compression.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { inflatedAtMost } from '../protocol/inflated-size.ts';
import * as batchHeader from '../protocol/record-batch.ts';
import { holdsRecords } from '../protocol/records.ts';
import type { TopicSettings } from '../storage/topic-config.ts';
import type { Allowance } from './allowance.ts';

export interface BatchProblem {
  readonly code: number;
  readonly message: string;
}

/** The first produce version that may carry zstd (KIP-110). */
const zstdSince = 7;

const invalid = (message: string): BatchProblem => ({ code: ErrorCode.INVALID_RECORD, message });
const corrupt = (message: string): BatchProblem => ({ code: ErrorCode.CORRUPT_MESSAGE, message });

/** `now`: ms since the Unix epoch, for the bounds that a topic sets to timestamps. */
export function checkBatch(
  records: Buffer | null,
  produceVersion: number,
  settings: TopicSettings,
  now: number,
): BatchProblem | undefined {
  if (records === null || records.length <= 16) {
    return invalid('a produce request carries a record batch for each partition');
  }
  const magic = batchHeader.magic(records);
  if (magic === 0 || magic === 1) {
    return {
      code: produceVersion < 3 ? ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT : ErrorCode.INVALID_RECORD,
      message: `message format ${magic} is not taken; format 2 is`,
    };
  }
  if (magic !== 2) return corrupt(`there is no message format ${magic}`);
  const bytes = batchHeader.batchBytes(records);
  if (bytes < batchHeader.headerBytes) return corrupt('the batch length does not fit');
  if (bytes > records.length) return invalid('the record batch is cut short');
  if (bytes < records.length) return invalid('a produce request carries one record batch for each partition');
  if (bytes > settings.maxMessageBytes) {
    return {
      code: ErrorCode.MESSAGE_TOO_LARGE,
      message: `the batch has ${bytes} bytes; max.message.bytes is ${settings.maxMessageBytes}`,
    };
  }
  if (batchHeader.baseOffset(records) !== 0n) return invalid('a producer’s batch has base offset 0');
  if (batchHeader.crc(records) !== batchHeader.computeCrc(records)) return corrupt('the CRC does not match');
  if (batchHeader.isControl(records)) return invalid('control batches are the broker’s');
  const count = batchHeader.recordCount(records);
  if (count < 1 || batchHeader.lastOffsetDelta(records) !== count - 1) {
    return invalid('the record count does not fit the last offset delta');
  }
  const codec = batchHeader.codec(records);
  if (codec > 4 || (codec === 4 && produceVersion < zstdSince)) {
    return { code: ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, message: `compression codec ${codec} is not taken` };
  }
  if (batchHeader.isTransactional(records)) {
    return { code: ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, message: 'transactions are not served' };
  }
  if (
    batchHeader.producerId(records) >= 0n &&
    (batchHeader.baseSequence(records) < 0 || batchHeader.producerEpoch(records) < 0)
  ) {
    return invalid('an idempotent producer’s batch has an epoch and a sequence');
  }
  // Lengths only, 23 M records/s: a malformed record would stop every consumer of the partition for good. Compressed
  // batches are looked into when they are rewritten.
  if (codec === 0 && !holdsRecords(records.subarray(batchHeader.headerBytes), count)) {
    return invalid('the records do not fill the batch');
  }
  return settings.timestampType === 'CreateTime' ? checkTimestamp(records, settings, now) : undefined;
}

function checkTimestamp(records: Buffer, settings: TopicSettings, now: number): BatchProblem | undefined {
  const newest = Number(batchHeader.maxTimestamp(records));
  if (newest < 0) return undefined; // no timestamp
  if (newest - now > settings.timestampAfterMaxMs || now - newest > settings.timestampBeforeMaxMs) {
    return { code: ErrorCode.INVALID_TIMESTAMP, message: `timestamp ${newest} is too far from the broker’s ${now}` };
  }
  return undefined;
}

/** How much a batch may grow when it is stored uncompressed: a bomb is refused, not inflated. */
const growth = 16;

/**
 * The bytes to store: the producer's own, or a promise of them rewritten to the topic's compression.type. Rewritten
 * bytes are held in `inflation` until the caller gives them back.
 */
export function storedForm(
  batch: Buffer,
  settings: TopicSettings,
  inflation: Allowance,
): Buffer | Promise<Buffer | BatchProblem> {
  const wanted = settings.compressionType;
  if (wanted === 'producer') return batch;
  const codec = codecNumber(wanted === 'uncompressed' ? 'none' : wanted);
  if (batchHeader.codec(batch) === codec) return batch;
  return rewrite(batch, codec, settings, inflation).catch((error: unknown) => {
    if (!(error instanceof CompressionError)) throw error;
    if (error instanceof RecordCountError) return invalid(error.message);
    return error.tooLarge ? { code: ErrorCode.MESSAGE_TOO_LARGE, message: error.message } : corrupt(error.message);
  });
}

async function rewrite(batch: Buffer, codec: number, settings: TopicSettings, inflation: Allowance): Promise<Buffer> {
  const maxBytes = settings.maxMessageBytes * growth;
  const most = Math.min(maxBytes, inflatedAtMost(batchHeader.codec(batch), batch.length));
  await inflation.take(most);
  let kept = 0;
  try {
    const rewritten = await recompress(batch, codec, { maxBytes, level: settings.compressionLevel });
    kept = rewritten.length;
    return rewritten;
  } finally {
    inflation.give(most - kept);
  }
}
