// The few requests that every fault test makes, over a WireClient.
import { decodeBatch } from '../../src/protocol/compression.ts';
import { ErrorCode, errorOf } from '../../src/protocol/errors.ts';
import { Produce } from '../../src/protocol/messages/00-produce.ts';
import { Fetch } from '../../src/protocol/messages/01-fetch.ts';
import { ListOffsets } from '../../src/protocol/messages/02-list-offsets.ts';
import { CreateTopics } from '../../src/protocol/messages/19-create-topics.ts';
import { InitProducerId } from '../../src/protocol/messages/22-init-producer-id.ts';
import { splitBatches } from '../../src/protocol/record-batch.ts';
import { buildBatch, type LogRecord, type NewRecord } from '../../src/protocol/records.ts';
import type { WireClient } from './wire.ts';

export const record = (value: string | Buffer): NewRecord => ({
  timestamp: BigInt(Date.now()),
  value: Buffer.from(value),
});

/** A batch with these values, of no producer. */
export const batchOf = (...values: (string | Buffer)[]): Buffer => buildBatch({ records: values.map(record) });

export async function createTopic(
  client: WireClient,
  name: string,
  partitions = 1,
  configs: Readonly<Record<string, string>> = {},
): Promise<void> {
  const request = {
    topics: [
      {
        name,
        numPartitions: partitions,
        replicationFactor: 1,
        assignments: [],
        configs: Object.entries(configs).map(([name, value]) => ({ name, value })),
      },
    ],
    timeoutMs: 30_000,
    validateOnly: false,
  };
  let answer = (await client.request(CreateTopics, 5, request)).topics[0]!;
  // As clients do while a broker begins its next term.
  while (answer.errorCode === ErrorCode.NOT_CONTROLLER) {
    answer = (await client.request(CreateTopics, 5, request)).topics[0]!;
  }
  const { errorCode, errorMessage } = answer;
  if (errorCode !== ErrorCode.NONE) throw new Error(`${errorOf(errorCode).name}: ${errorMessage}`);
}

export interface Produced {
  readonly errorCode: number;
  readonly baseOffset: bigint;
  readonly errorMessage: string | null;
}

export async function produce(
  client: WireClient,
  topic: string,
  partition: number,
  records: Buffer | null,
  options: { readonly acks?: number; readonly timeoutMs?: number; readonly version?: number } = {},
): Promise<Produced> {
  const { acks = -1, timeoutMs = 60_000, version = 9 } = options;
  const { responses } = await client.request(Produce, version, {
    acks,
    timeoutMs,
    topicData: [{ name: topic, partitionData: [{ index: partition, records }] }],
  });
  return responses[0]!.partitionResponses[0]!;
}

export async function fetchOnce(
  client: WireClient,
  topic: string,
  partition: number,
  offset: bigint,
  options: { readonly maxBytes?: number; readonly maxWaitMs?: number; readonly minBytes?: number } = {},
) {
  const { maxBytes = 4 * 2 ** 20, maxWaitMs = 0, minBytes = 1 } = options;
  const { responses } = await client.request(Fetch, 11, {
    maxWaitMs,
    minBytes,
    maxBytes,
    isolationLevel: 0,
    sessionId: 0,
    sessionEpoch: -1,
    topics: [{ topic, partitions: [{ partition, fetchOffset: offset, partitionMaxBytes: maxBytes }] }],
    forgottenTopicsData: [],
    rackId: '',
  });
  return responses[0]!.partitions[0]!;
}

export async function recordsOf(bytes: Buffer | null): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  for (const batch of splitBatches(bytes ?? Buffer.alloc(0))) records.push(...(await decodeBatch(batch, 2 ** 26)));
  return records;
}

/** Every record of a partition from `from` up to the high watermark; what can be asked again is asked again. */
export async function readAll(client: WireClient, topic: string, partition: number, from = 0n): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  let next = from;
  for (;;) {
    const answer = await fetchOnce(client, topic, partition, next);
    if (errorOf(answer.errorCode).retriable) continue;
    if (answer.errorCode !== ErrorCode.NONE) throw new Error(errorOf(answer.errorCode).name);
    const found = (await recordsOf(answer.records)).filter(({ offset }) => offset >= next);
    for (const each of found) records.push(each); // more than a call takes arguments
    if (found.length > 0) next = found.at(-1)!.offset + 1n;
    if (next >= answer.highWatermark) return records;
  }
}

export const earliest = -2n;
export const latest = -1n;

export async function listOffset(
  client: WireClient,
  topic: string,
  partition: number,
  timestamp: bigint,
): Promise<bigint> {
  const { topics } = await client.request(ListOffsets, 6, {
    replicaId: -1,
    isolationLevel: 0,
    topics: [{ name: topic, partitions: [{ partitionIndex: partition, timestamp }] }],
  });
  const { errorCode, offset } = topics[0]!.partitions[0]!;
  if (errorCode !== ErrorCode.NONE) throw new Error(errorOf(errorCode).name);
  return offset;
}

export async function newProducerId(client: WireClient): Promise<bigint> {
  for (;;) {
    const { errorCode, producerId } = await client.request(InitProducerId, 4, {
      transactionalId: null,
      transactionTimeoutMs: 60_000,
    });
    if (errorCode === ErrorCode.NONE) return producerId;
    if (!errorOf(errorCode).retriable) throw new Error(errorOf(errorCode).name);
  }
}
