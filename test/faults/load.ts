// What goes on while things are killed: writers that report what was acknowledged to them, a reader that keeps up,
// and the failures of any of them.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { ErrorCode, errorOf } from '../../src/protocol/errors.ts';
import type { Acknowledged, Contents } from './audit.ts';
import { IdempotentProducer } from './idempotent-producer.ts';
import { fetchOnce, recordsOf } from './kafka.ts';
import type { Random } from './random.ts';
import { ClosedError, WireClient } from './wire.ts';

export interface Load {
  readonly port: number;
  readonly topic: string;
  readonly partitions: number;
  readonly random: Random;
  readonly acknowledged: Acknowledgements;
}

/** Runs until it is told to stop; then `done` resolves once its last record is acknowledged. */
export interface Task {
  readonly done: Promise<void>;
  stop(): void;
  /** Ends it, acknowledged or not. */
  abandon(): void;
}

export class Acknowledgements {
  readonly all: Acknowledged[] = [];
  #waiting: { readonly count: number; readonly resolve: () => void }[] = [];

  readonly add = (one: Acknowledged): void => {
    this.all.push(one);
    if (this.#waiting.length === 0) return;
    const reached = this.#waiting.filter(({ count }) => this.all.length >= count);
    this.#waiting = this.#waiting.filter(({ count }) => this.all.length < count);
    for (const { resolve } of reached) resolve();
  };

  /** Resolves when `count` more records have been acknowledged. */
  more(count: number): Promise<void> {
    return new Promise(resolve => this.#waiting.push({ count: this.all.length + count, resolve }));
  }
}

/** Tasks, the first failure of which ends whatever is awaited through `or`. */
export class Tasks {
  readonly #tasks: Task[] = [];
  #fail: (error: unknown) => void = () => {};
  readonly #failed = new Promise<never>((_, reject) => {
    this.#fail = reject;
  });

  constructor() {
    this.#failed.catch(() => {});
  }

  add<T extends Task>(task: T): T {
    this.#tasks.push(task);
    task.done.catch(error => this.#fail(error));
    return task;
  }

  or<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#failed]);
  }

  async stop(): Promise<void> {
    for (const task of this.#tasks) task.stop();
    await this.or(Promise.all(this.#tasks.map(task => task.done)));
  }

  abandon(): void {
    for (const task of this.#tasks) task.abandon();
  }
}

/** Five batches in flight to one partition; every `single`th writer sends single records. */
export function pipelinedWriter(load: Load, partition: number, sizes: readonly number[]): Task {
  const producer = new IdempotentProducer({
    port: load.port,
    name: `pipelined${partition}`,
    topic: load.topic,
    partition,
    batchSize: () => load.random.pick(sizes),
    onAcknowledged: load.acknowledged.add,
  });
  return { done: producer.run(), stop: () => producer.stop(), abandon: () => producer.abandon() };
}

/**
 * kafkajs, idempotent. One send at a time: with two, its retry of a lost one may go out under the sequence that the
 * other has taken meanwhile.
 */
export function kafkajsWriter(load: Load, name: string, sizes: readonly number[]): Task {
  const kafka = new kafkajs.Kafka({
    clientId: name,
    brokers: [`127.0.0.1:${load.port}`],
    logLevel: kafkajs.logLevel.NOTHING,
    // Longer than any recovery; for ever would keep a test that has failed from ending.
    retry: { initialRetryTime: 20, maxRetryTime: 300, retries: 150 },
  });
  const producer = kafka.producer({ idempotent: true, allowAutoTopicCreation: false });
  let stopping = false;
  const run = async () => {
    await producer.connect();
    for (let next = 0; !stopping; ) {
      const messages = Array.from({ length: load.random.pick(sizes) }, () => ({
        partition: load.random.below(load.partitions),
        value: `${name}:${next++}`,
      }));
      for (const { errorCode, partition, baseOffset } of await producer.send({ topic: load.topic, messages })) {
        assert.equal(errorCode, ErrorCode.NONE);
        messages
          .filter(message => message.partition === partition)
          .forEach(({ value }, i) => {
            load.acknowledged.add({ partition, offset: BigInt(baseOffset!) + BigInt(i), id: value });
          });
      }
    }
    await producer.disconnect();
  };
  return {
    done: run(),
    stop() {
      stopping = true;
    },
    abandon() {
      stopping = true;
      void producer.disconnect();
    },
  };
}

/** Reads every partition from the beginning and keeps up: what it has seen must stay. */
export class TailReader implements Task {
  readonly done: Promise<void>;
  readonly #load: Load;
  readonly #seen: string[][];
  #stopping = false;

  constructor(load: Load) {
    this.#load = load;
    this.#seen = Array.from({ length: load.partitions }, () => []);
    this.done = this.#run();
  }

  stop(): void {
    this.#stopping = true;
  }

  abandon(): void {
    this.#stopping = true;
  }

  assertAgrees(contents: Contents): void {
    for (const [partition, ids] of this.#seen.entries()) {
      const common = Math.min(ids.length, contents[partition]!.length);
      assert.deepEqual(ids.slice(0, common), contents[partition]!.slice(0, common), 'what was read has changed');
    }
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      const client = await WireClient.connect(this.#load.port).catch(() => undefined);
      try {
        if (client) await Promise.all(this.#seen.map((_, partition) => this.#follow(client, partition)));
        else await delay(20);
      } catch (error) {
        if (!(error instanceof ClosedError)) throw error;
      } finally {
        client?.close();
      }
    }
  }

  async #follow(client: WireClient, partition: number): Promise<void> {
    const ids = this.#seen[partition]!;
    while (!this.#stopping) {
      const next = BigInt(ids.length);
      const answer = await fetchOnce(client, this.#load.topic, partition, next, { maxWaitMs: 50 });
      if (errorOf(answer.errorCode).retriable) continue;
      assert.equal(answer.errorCode, ErrorCode.NONE, `reading ${partition}/${next}: ${errorOf(answer.errorCode).name}`);
      for (const { offset, value } of await recordsOf(answer.records)) {
        if (offset < next) continue;
        assert.equal(offset, BigInt(ids.length));
        ids.push(value!.toString());
      }
    }
  }
}
