// The consumer group in a remote Kafka that shows how far a sink has come with its topics. It follows the progress table,
// a second behind at the most, and nothing waits for it: what it could not be told now, it is told with what comes next.
import type { Logger } from 'pino';
import type { CommittedOffset } from '../client/offsets.ts';
import { messageOf } from '../runtime/errors.ts';
import type { KafkaSource } from '../source/kafka-source.ts';
import type { Move } from './progress.ts';
import type { FollowingGroup } from './remote-progress.ts';

export interface RemoteGroupOptions {
  readonly source: KafkaSource;
  readonly clusterId: string;
  readonly group: string;
  readonly logger: Logger;
}

const everyMs = 1000;
/** How long the last offsets may take when a sink ends. */
const lastMs = 2000;

export class RemoteGroup implements FollowingGroup {
  readonly clusterId: string;
  readonly #options: RemoteGroupOptions;
  /** What it has not been told. */
  #moved = new Map<string, Move>();
  #timer: NodeJS.Timeout | undefined;
  #committing: Promise<void> | undefined;
  /** What was logged last: a group with members refuses every second. */
  #refusal: string | undefined;

  constructor(options: RemoteGroupOptions) {
    this.#options = options;
    this.clusterId = options.clusterId;
  }

  follow(moves: readonly Move[]): void {
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
      logger.warn({ group, error: refusal }, 'a sink’s group in the remote Kafka did not follow its progress');
    }
  }
}
