// Records that the target refuses go to a topic of this log as they were, with headers that say why: Kafka Connect's names
// where it has them. With each commits a row that says that it is there (kafka.mirror_refused), so that none is there twice
// when the mirror begins again before its position has moved past it.
import type { KafkaError } from '../client/errors.ts';
import type { Pool } from '../postgres/pool.ts';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import { buildBatch, type LogRecord } from '../protocol/records.ts';
import type { CarriedStatement } from '../storage/group.ts';
import type { Log } from '../storage/log.ts';
import { type Topic, TopicError, type Topics } from '../storage/topics.ts';

export interface DeadLettersOptions {
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly mirror: string;
  /** Its name. */
  readonly topic: string;
}

export interface Refused {
  readonly copyId: number;
  readonly topic: string;
  readonly partition: number;
  readonly record: LogRecord;
  readonly error: KafkaError;
}

const refused: CarriedStatement = {
  head: 'INSERT INTO kafka.mirror_refused (copy_id, record_offset, error_code) VALUES',
  tail: 'ON CONFLICT DO NOTHING',
};
/** Records are here that a target with less room refuses: the topic takes what any topic of this log can hold. */
const maxMessageBytes = String(2 ** 31 - 1);
const maxReasonChars = 1000;

export class DeadLetters {
  readonly #options: DeadLettersOptions;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** Resolves when it is in the log; one that is there already is passed over. */
  async send({ copyId, topic: from, partition, record, error }: Refused): Promise<void> {
    const { pool, log, mirror } = this.#options;
    const { rows } = await pool.query('SELECT FROM kafka.mirror_refused WHERE copy_id = $1 AND record_offset = $2', [
      copyId,
      record.offset,
    ]);
    if (rows.length > 0) return;
    const topic = await this.#topic();
    const reason = {
      '__connect.errors.topic': from,
      '__connect.errors.partition': String(partition),
      '__connect.errors.offset': String(record.offset),
      '__connect.errors.connector.name': mirror,
      '__connect.errors.exception.message': error.message.slice(0, maxReasonChars),
      'millrace.error.code': error.error,
    };
    const headers = Object.entries(reason).map(([key, value]) => ({ key, value: Buffer.from(value) }));
    const batch = buildBatch({ records: [{ ...record, headers: [...record.headers, ...headers] }] });
    const key = `${copyId} ${record.offset}`;
    const carried = { statement: refused, key, row: `(${copyId}, ${record.offset}, ${error.code})` };
    const answer = await log.append(topic, log.partition(topic, 0)!, batch, -1, false, { carried }).result;
    if (answer.error !== ErrorCode.NONE) {
      throw new Error(`topic ${topic.name} did not take a dead letter (${errorOf(answer.error).name})`);
    }
  }

  async #topic(): Promise<Topic> {
    const { topics, topic: name } = this.#options;
    const known = topics.get(name);
    if (known) return known;
    try {
      return await topics.create({ name, partitionCount: 1, config: { 'max.message.bytes': maxMessageBytes } });
    } catch (error) {
      const made = topics.get(name);
      if (error instanceof TopicError && error.code === ErrorCode.TOPIC_ALREADY_EXISTS && made) return made;
      throw error;
    }
  }
}
