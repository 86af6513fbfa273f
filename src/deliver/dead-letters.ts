// What an inbox gives up goes to a topic of this log, written by the process that leads it. With each append commits a row
// that says that it is there, so nothing is there twice. Where the letters come from is their shelf's affair.
import type { Logger } from 'pino';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import { buildBatch, type NewRecord } from '../protocol/records.ts';
import { messageOf } from '../runtime/errors.ts';
import type { CarriedRow } from '../storage/group.ts';
import type { Log } from '../storage/log.ts';
import { type Topic, TopicError, type Topics } from '../storage/topics.ts';

export interface Letters {
  readonly records: readonly NewRecord[];
  /** Says that they are in the topic. */
  readonly carried: CarriedRow;
}

export interface Shelf {
  /** What is not in the topic yet, oldest first. Each is appended before the next is asked for. */
  letters(): AsyncIterable<Letters>;
  /** Now and then: forgets what can never be asked for again. */
  tidy(): Promise<void>;
}

export interface DeadLettersOptions {
  readonly logger: Logger;
  readonly log: Log;
  readonly topics: Topics;
  readonly inbox: string;
  readonly topic: string;
  readonly shelf: Shelf;
}

const againMs = 5000;
const tidyMs = 3_600_000;
const maxMessageBytes = 64 * 1024 * 1024;

export class DeadLetters {
  readonly #options: DeadLettersOptions;
  #sent = 0;
  #running: Promise<void> | undefined;
  #wanted = false;
  #tidiedAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** Appended by this process. */
  get sent(): number {
    return this.#sent;
  }

  /** There may be some. */
  look(): void {
    this.#wanted = true;
    if (this.#stopped) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#wanted) this.look();
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #run(): Promise<void> {
    const { logger, inbox, shelf } = this.#options;
    try {
      while (this.#wanted && !this.#stopped) {
        this.#wanted = false;
        for await (const letters of shelf.letters()) {
          if (this.#stopped) return;
          await this.#append(letters);
        }
      }
      if (this.#stopped || Date.now() - this.#tidiedAt < tidyMs) return;
      this.#tidiedAt = Date.now();
      await shelf.tidy();
    } catch (error) {
      this.#wanted = false;
      if (this.#stopped) return;
      logger.warn({ inbox, error: messageOf(error) }, 'dead letters are not in their topic yet; trying again');
      this.#timer = setTimeout(() => this.look(), againMs);
    }
  }

  async #append({ records, carried }: Letters): Promise<void> {
    const { log } = this.#options;
    const topic = await this.#topic();
    const batch = buildBatch({ records });
    const { error } = await log.append(topic, log.partition(topic, 0)!, batch, -1, false, { carried }).result;
    if (error !== ErrorCode.NONE) {
      throw new Error(`topic ${topic.name} did not take a dead letter (${errorOf(error).name})`);
    }
    this.#sent += records.length;
  }

  async #topic(): Promise<Topic> {
    const { topics, topic: name } = this.#options;
    const known = topics.get(name);
    if (known) return known;
    try {
      return await topics.create({ name, partitionCount: 1, config: { 'max.message.bytes': String(maxMessageBytes) } });
    } catch (error) {
      const made = topics.get(name);
      if (error instanceof TopicError && error.code === ErrorCode.TOPIC_ALREADY_EXISTS && made) return made;
      throw error;
    }
  }
}
