// The consumer group in a remote Kafka that shows how far a reader has come with its topics. It follows the position that
// the reader keeps, a second behind at the most, and nothing waits for it: what it could not be told now, it is told with
// what comes next.
import type { Logger } from 'pino';
import type { CommittedOffset } from '../client/offsets.ts';
import { messageOf } from '../runtime/errors.ts';
import type { KafkaSource } from './kafka-source.ts';
import type { SourceTopic } from './source.ts';

/** How far a partition has been read. */
export interface Reached {
  readonly topic: SourceTopic;
  readonly partition: number;
  readonly next: bigint;
}

export interface RemoteGroupOptions {
  readonly source: KafkaSource;
  readonly clusterId: string;
  readonly group: string;
  readonly logger: Logger;
}

const everyMs = 1000;
/** How long the last offsets may take when a reader ends. */
const lastMs = 2000;

export class RemoteGroup {
  readonly clusterId: string;
  readonly #options: RemoteGroupOptions;
  /** What it has not been told. */
  #moved = new Map<string, Reached>();
  #timer: NodeJS.Timeout | undefined;
  #committing: Promise<void> | undefined;
  /** What was logged last: a group with members refuses every second. */
  #refusal: string | undefined;

  constructor(options: RemoteGroupOptions) {
    this.#options = options;
    this.clusterId = options.clusterId;
  }

  /** Commits the offsets there, sooner or later. */
  follow(moves: readonly Reached[]): void {
    for (const move of moves) this.#moved.set(`${move.topic.id} ${move.partition}`, move);
    this.#timer ??= setTimeout(() => void this.#commit(), everyMs);
  }

  /** Tells it the last, if that can be done at once. */
  async end(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<void>(resolve => {
      timer = setTimeout(resolve, lastMs);
    });
    const last = (this.#committing ?? Promise.resolve()).then(() => this.#commit());
    await Promise.race([last, tooLong]);
    clearTimeout(timer);
    clearTimeout(this.#timer);
  }

  async #commit(): Promise<void> {
    clearTimeout(this.#timer);
    const moved = this.#moved;
    if (moved.size === 0) return;
    this.#moved = new Map();
    const offsets = Array.from(moved.values(), ({ topic, partition, next }) => ({
      topic: topic.name,
      partition,
      offset: next,
    }));
    this.#committing = this.#tell(offsets);
    await this.#committing;
    this.#timer = this.#moved.size > 0 ? setTimeout(() => void this.#commit(), everyMs) : undefined;
  }

  async #tell(offsets: readonly CommittedOffset[]): Promise<void> {
    const { source, group, logger } = this.#options;
    try {
      await source.commit(group, offsets);
      this.#refusal = undefined;
    } catch (error) {
      const refusal = messageOf(error);
      if (refusal === this.#refusal) return;
      this.#refusal = refusal;
      logger.warn({ group, error: refusal }, 'a group in the remote Kafka did not follow its reader');
    }
  }
}
