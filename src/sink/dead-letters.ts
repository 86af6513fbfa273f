// Records that do not fit go to a topic of their own as they were, with headers that say why: Kafka Connect's names where
// it has them. With each commits a row that says that it is there, so none is there twice when the sink begins again
// before the offset has moved past it.
import type { Pool } from '../postgres/pool.ts';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import { buildBatch, type RecordHeader } from '../protocol/records.ts';
import type { SourceTopic } from '../source/source.ts';
import type { CarriedRow, CarriedStatement } from '../storage/group.ts';
import type { Log } from '../storage/log.ts';
import type { TopicSettings } from '../storage/topic-config.ts';
import { type Topic, TopicError, type Topics } from '../storage/topics.ts';
import type { BadItem } from './batch.ts';
import type { SinkDefinition } from './definition.ts';

export interface DeadLettersOptions {
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly settingsOf: (topic: Topic) => TopicSettings;
  readonly definition: SinkDefinition;
  readonly sinkId: number;
}

const sent: CarriedStatement = {
  head: 'INSERT INTO kafka.sink_dead_letters (sink_id, topic_id, partition_id, record_offset) VALUES',
  tail: 'ON CONFLICT DO NOTHING',
};

/** What the reasons add to a record, and a batch to its records. */
const overheadBytes = 8192;
/** What records of a remote Kafka are taken to be at the most. */
const remoteMessageBytes = 64 * 1024 * 1024;
const maxMessageChars = 1000;

export class DeadLetters {
  readonly #options: DeadLettersOptions;
  readonly #there = new Set<string>();
  #sequence = 0;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** Reads which records are there that the offsets have not passed yet. */
  async load(): Promise<void> {
    const { pool, sinkId } = this.#options;
    const { rows } = await pool.query<{ topic: number; partition: number; offset: bigint }>(
      `SELECT topic_id AS topic, partition_id AS partition, record_offset AS offset
       FROM kafka.sink_dead_letters WHERE sink_id = $1`,
      [sinkId],
    );
    this.#there.clear();
    for (const { topic, partition, offset } of rows) this.#there.add(`${topic} ${partition} ${offset}`);
  }

  /** Resolves when they are in the log; those that are there already are passed over. Returns how many were appended. */
  async send(items: readonly BadItem[]): Promise<number> {
    const missing = items.filter(item => !this.#there.has(keyOf(item)));
    if (missing.length === 0) return 0;
    const topic = await this.#topic(missing[0]!.source.inlet.topic);
    const { log, settingsOf } = this.#options;
    const { maxMessageBytes, timestampType } = settingsOf(topic);
    for (const group of cut(missing, maxMessageBytes)) {
      const batch = buildBatch({
        records: group.map(item => ({ ...item.record, headers: [...item.record.headers, ...this.#reason(item)] })),
      });
      const appendTime = timestampType === 'LogAppendTime';
      const { error } = await log.append(topic, log.partition(topic, 0)!, batch, -1, appendTime, {
        carried: this.#carried(group),
      }).result;
      if (error !== ErrorCode.NONE) {
        throw new Error(`topic ${topic.name} did not take a dead letter (${errorOf(error).name})`);
      }
      for (const item of group) this.#there.add(keyOf(item));
    }
    return missing.length;
  }

  /** The offsets have passed them. */
  passed(items: readonly BadItem[]): void {
    for (const item of items) this.#there.delete(keyOf(item));
  }

  #carried(items: readonly BadItem[]): CarriedRow {
    const { sinkId } = this.#options;
    const row = items.map(
      ({ source, record }) => `(${sinkId}, ${source.inlet.topic.id}, ${source.partition}, ${record.offset})`,
    );
    return { statement: sent, key: `${sinkId} ${this.#sequence++}`, row: row.join(', ') };
  }

  #reason({ source, record, error }: BadItem): RecordHeader[] {
    const reason: Record<string, string> = {
      '__connect.errors.topic': source.inlet.topic.name,
      '__connect.errors.partition': String(source.partition),
      '__connect.errors.offset': String(record.offset),
      '__connect.errors.connector.name': this.#options.definition.name,
      '__connect.errors.exception.message': error.message.slice(0, maxMessageChars),
      'millrace.error.code': error.code,
      ...(error.column === undefined ? {} : { 'millrace.error.column': error.column }),
    };
    return Object.entries(reason).map(([key, value]) => ({ key, value: Buffer.from(value) }));
  }

  /** Made where there is none, so that it takes any record of the source. */
  async #topic(source: SourceTopic): Promise<Topic> {
    const { topics, settingsOf, definition } = this.#options;
    const name = definition.deadLetterTopic;
    const known = topics.get(name);
    if (known) return known;
    const own = topics.get(source.name);
    const largest = own?.uuid === source.uuid ? settingsOf(own).maxMessageBytes : remoteMessageBytes;
    const maxBytes = Math.min(largest + 2 * overheadBytes, 2 ** 31 - 1);
    try {
      return await topics.create({ name, partitionCount: 1, config: { 'max.message.bytes': String(maxBytes) } });
    } catch (error) {
      const made = topics.get(name);
      if (error instanceof TopicError && error.code === ErrorCode.TOPIC_ALREADY_EXISTS && made) return made;
      throw error;
    }
  }
}

const keyOf = ({ source, record }: BadItem): string => `${source.inlet.topic.id} ${source.partition} ${record.offset}`;

function* cut(items: readonly BadItem[], maxBytes: number): Iterable<BadItem[]> {
  let group: BadItem[] = [];
  let bytes = 0;
  for (const item of items) {
    const size = (item.record.key?.length ?? 0) + (item.record.value?.length ?? 0) + overheadBytes;
    if (group.length > 0 && bytes + size > maxBytes) {
      yield group;
      group = [];
      bytes = 0;
    }
    group.push(item);
    bytes += size;
  }
  if (group.length > 0) yield group;
}
