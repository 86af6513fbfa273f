// Records that SQL has produced (kafka.produce), as they come out of the WAL: proven, then into the topic they name.
import type { Logger } from 'pino';
import type { Message } from '../postgres/pgoutput.ts';
import { encodeHeaders } from '../protocol/records.ts';
import { TopicError } from '../storage/topics.ts';
import type { Blob } from './batch-builder.ts';
import { type Outlet, RecordTooLarge, type Target } from './outlet.ts';
import { murmur2 } from './partitioner.ts';
import { type ProducedRecord, producePrefix, readProduced } from './produced-message.ts';
import type { Transaction } from './stream.ts';

export interface ProduceWriterOptions {
  readonly key: Buffer;
  readonly outlet: Outlet;
  readonly defaultPartitions: number;
  readonly logger: Logger;
}

/** Where a record goes that its topic does not take any more: the topic has been changed since kafka.produce looked. */
export const produceDeadLetters = 'millrace.sql.dead-letter';

export class ProduceWriter {
  readonly #options: ProduceWriterOptions;

  constructor(options: ProduceWriterOptions) {
    this.#options = options;
  }

  message(message: Message & { kind: 'message' }, transaction: Transaction, ordinal: number): void | Promise<void> {
    if (message.prefix !== producePrefix || !message.transactional || transaction.xid === null) return undefined;
    const record = readProduced(message.content, transaction.xid, this.#options.key);
    if (record === undefined) {
      this.#options.logger.warn({ xid: transaction.xid }, 'passed over a message that kafka.produce did not make');
      return undefined;
    }
    const target = this.#options.outlet.known(record.topic);
    if (target) return this.#add(target, record, transaction, ordinal);
    return this.#make(record, transaction, ordinal);
  }

  async #make(record: ProducedRecord, transaction: Transaction, ordinal: number): Promise<void> {
    const { outlet, defaultPartitions } = this.#options;
    try {
      const target = await outlet.target(record.topic, defaultPartitions);
      await this.#add(target, record, transaction, ordinal);
    } catch (error) {
      if (!(error instanceof TopicError)) throw error;
      await this.#deadLetter(record, transaction, ordinal, error.message);
    }
  }

  #add(target: Target, record: ProducedRecord, transaction: Transaction, ordinal: number): void | Promise<void> {
    const count = target.partitions.length;
    if (record.partition >= count) {
      return this.#deadLetter(record, transaction, ordinal, `the topic has ${count} partitions`);
    }
    const partition =
      record.partition < 0 && record.key === null ? spread(transaction, ordinal, count) : record.partition;
    try {
      this.#write(target, partition, record, transaction, ordinal, record.headers);
    } catch (error) {
      if (!(error instanceof RecordTooLarge)) throw error;
      return this.#deadLetter(record, transaction, ordinal, error.message);
    }
    return undefined;
  }

  async #deadLetter(record: ProducedRecord, transaction: Transaction, ordinal: number, reason: string): Promise<void> {
    const { outlet, logger } = this.#options;
    logger.error({ topic: record.topic, reason }, 'a record that SQL produced went to the dead letters');
    const target = await outlet.target(produceDeadLetters, 1, { 'max.message.bytes': '2147483647' });
    this.#write(target, 0, record, transaction, ordinal, [
      ...record.headers,
      ['topic', Buffer.from(record.topic)],
      ['reason', Buffer.from(reason)],
    ]);
  }

  #write(
    target: Target,
    partition: number,
    record: ProducedRecord,
    { commitLsn, commitMs }: Transaction,
    ordinal: number,
    headers: ProducedRecord['headers'],
  ): void {
    const blob = (bytes: Buffer | null): Blob => ({ bytes, start: 0, end: bytes?.length ?? 0 });
    const encoded = encodeHeaders(headers);
    const { outlet } = this.#options;
    outlet.add(target, partition, commitLsn, ordinal, commitMs, blob(record.key), blob(record.value), encoded);
  }
}

const place = Buffer.alloc(16);

/** Any partition, but the same one if the transaction comes again. */
function spread({ commitLsn }: Transaction, ordinal: number, partitions: number): number {
  place.writeBigUInt64BE(commitLsn, 0);
  place.writeBigUInt64BE(BigInt(ordinal), 8);
  return (murmur2(place, 0, place.length) & 0x7fff_ffff) % partitions;
}
