// This log as a capture's destination: batches go through group commit, and with each commits the position of its last
// change, in the same transaction.
import { formatLsn, parseLsn } from '../postgres/lsn.ts';
import type { Pool } from '../postgres/pool.ts';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import type { AppendChain, CarriedRow, CarriedStatement } from '../storage/group.ts';
import type { Log } from '../storage/log.ts';
import type { TopicSettings } from '../storage/topic-config.ts';
import { type Topic, TopicError, type Topics } from '../storage/topics.ts';
import type { Destination, Place, StoredPosition } from './destination.ts';

export interface LogDestinationOptions {
  readonly captureId: number;
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly settingsOf: (topic: Topic) => TopicSettings;
}

class LogPlace implements Place {
  readonly topic: Topic;
  readonly maxRecordBytes: number;
  readonly appendTime: boolean;
  readonly stored: readonly (StoredPosition | undefined)[];

  constructor(topic: Topic, settings: TopicSettings, stored: LogPlace['stored']) {
    this.topic = topic;
    this.maxRecordBytes = settings.maxMessageBytes;
    this.appendTime = settings.timestampType === 'LogAppendTime';
    this.stored = stored;
  }

  get name(): string {
    return this.topic.name;
  }
  get partitionCount(): number {
    return this.topic.partitionCount;
  }
}

const positions: CarriedStatement = {
  head: 'INSERT INTO kafka.capture_positions (capture_id, topic_id, partition_id, partition_count, commit_lsn, ordinal) VALUES',
  tail: `ON CONFLICT (capture_id, topic_id, partition_id) DO UPDATE
    SET partition_count = excluded.partition_count, commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal`,
};

export class LogDestination implements Destination {
  readonly settleMs = undefined;
  readonly #options: LogDestinationOptions;
  readonly #places = new Map<string, LogPlace>();
  readonly #stored = new Map<number, (StoredPosition | undefined)[]>();
  /** A batch that failed must not be followed by a later one: its position would say that both are there. */
  readonly #chain: AppendChain = { broken: false };

  constructor(options: LogDestinationOptions) {
    this.#options = options;
  }

  async load(): Promise<void> {
    const { pool, captureId } = this.#options;
    const { rows } = await pool.query<{
      topic_id: number;
      partition_id: number;
      partition_count: number;
      commit_lsn: string;
      ordinal: bigint;
    }>(
      `SELECT topic_id, partition_id, partition_count, commit_lsn::text, ordinal
       FROM kafka.capture_positions WHERE capture_id = $1`,
      [captureId],
    );
    for (const row of rows) {
      let ofTopic = this.#stored.get(row.topic_id);
      if (!ofTopic) {
        ofTopic = [];
        this.#stored.set(row.topic_id, ofTopic);
      }
      ofTopic[row.partition_id] = {
        commitLsn: parseLsn(row.commit_lsn),
        ordinal: Number(row.ordinal),
        partitionCount: row.partition_count,
      };
    }
  }

  known(name: string): Place | undefined {
    const topic = this.#options.topics.get(name);
    if (topic === undefined) return undefined;
    let place = this.#places.get(name);
    if (place?.topic !== topic) {
      place = new LogPlace(topic, this.#options.settingsOf(topic), this.#stored.get(topic.id) ?? []);
      this.#places.set(name, place);
    }
    return place;
  }

  async find(name: string): Promise<Place | undefined> {
    return this.known(name);
  }

  async open(name: string, partitionCount: number, config: Readonly<Record<string, string>>): Promise<Place> {
    const known = this.known(name);
    if (known) return known;
    try {
      await this.#options.topics.create({ name, partitionCount, config });
    } catch (error) {
      // Somebody else was quicker.
      if (!(error instanceof TopicError) || error.code !== ErrorCode.TOPIC_ALREADY_EXISTS) throw error;
    }
    const made = this.known(name);
    if (made === undefined) throw new TopicError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 'it was deleted at once');
    return made;
  }

  async append(place: Place, partition: number, batch: Buffer, last: StoredPosition): Promise<void> {
    const { log, captureId } = this.#options;
    const { topic, appendTime } = place as LogPlace;
    const row: CarriedRow = {
      statement: positions,
      key: `${captureId}.${topic.id}.${partition}`,
      row: `(${captureId}, ${topic.id}, ${partition}, ${last.partitionCount}, '${formatLsn(last.commitLsn)}', ${last.ordinal})`,
    };
    const to = log.partition(topic, partition)!;
    const { error } = await log.append(topic, to, batch, -1, appendTime, {
      carried: row,
      chain: this.#chain,
    }).result;
    if (error !== ErrorCode.NONE) throw new Error(`topic ${topic.name} did not take a batch (${errorOf(error).name})`);
  }

  /** Positions commit with their batches. */
  async note(): Promise<void> {}

  abandon(): void {
    this.#chain.broken = true;
  }
}
