// Fetches partitions of a remote Kafka ahead of those who read them: one request at a time to each leader, bounded in
// bytes, and asked again elsewhere when leaders change or brokers go. A request waits at the broker only while nothing that
// has come is unread; else the partition that has something would wait for those that have nothing.
import { earliest, latest, listOffsets } from '../client/admin.ts';
import type { Cluster } from '../client/cluster.ts';
import { isRetriable, KafkaError } from '../client/errors.ts';
import { checkedBatches, type Fetched, fetchFrom } from '../client/fetch.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { backoff } from '../runtime/backoff.ts';
import type { KafkaPartition } from './kafka-partition.ts';

export interface FetcherOptions {
  readonly cluster: Cluster;
  /** More may come while it runs. */
  readonly partitions: readonly KafkaPartition[];
  /** Fetched and not read, of all leaders together; besides, each may send one batch that is larger. */
  readonly budgetBytes?: number;
  readonly onTrouble: (error: Error | undefined) => void;
}

interface Plan {
  readonly parts: readonly KafkaPartition[];
  readonly maxWaitMs: number;
  readonly maxBytes: number;
}

const usualBudgetBytes = 16 * 1024 * 1024;
const partitionBytes = 1024 * 1024;
const longPollMs = 500;
const relocating = { firstMs: 50, maxMs: 3000 };

export class Fetcher {
  readonly #options: FetcherOptions;
  readonly #following = new Set<number>();
  readonly #poked = new Set<() => void>();
  #relocation: Promise<void> | undefined;
  #wait = backoff(relocating);
  #turn = 0;

  constructor(options: FetcherOptions) {
    this.#options = options;
  }

  /** Somebody wants something, or has read something. */
  poke(): void {
    for (const poked of [...this.#poked]) poked();
    this.#assign();
  }

  #leaderOf({ topic, partition }: KafkaPartition): number {
    try {
      return this.#options.cluster.leaderOf(topic.name, partition);
    } catch {
      return -1;
    }
  }

  #assign(): void {
    const { partitions, cluster } = this.#options;
    if (cluster.isClosed) return;
    for (const partition of partitions) {
      if (!partition.isWanted) continue;
      const leader = this.#leaderOf(partition);
      if (leader < 0) {
        void this.#relocate(new KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, partition.topic.name));
      } else if (!this.#following.has(leader)) {
        this.#following.add(leader);
        void this.#follow(leader).catch((error: Error) => this.#fail(error));
      }
    }
  }

  #fail(error: Error): void {
    if (this.#options.cluster.isClosed) return;
    for (const partition of this.#options.partitions) partition.fail(error);
  }

  /** For as long as it leads anything that is wanted. */
  async #follow(leader: number): Promise<void> {
    const { cluster, partitions } = this.#options;
    let late = false;
    try {
      for (;;) {
        if (cluster.isClosed) return;
        const led = partitions.filter(partition => partition.isWanted && this.#leaderOf(partition) === leader);
        if (led.length === 0) return;
        const plan = this.#plan(led, late);
        late = false;
        if (plan === undefined) {
          late = !(await this.#pokedWithin(longPollMs));
          continue;
        }
        try {
          await this.#fetch(leader, plan);
        } catch (error) {
          if (cluster.isClosed) return;
          if (!isRetriable(error)) throw error;
          await this.#relocate(error as Error);
        }
      }
    } finally {
      this.#following.delete(leader);
    }
  }

  /** Undefined while something must be read first. `late`: what has nothing is looked at in any case. */
  #plan(led: readonly KafkaPartition[], late: boolean): Plan | undefined {
    const { budgetBytes = usualBudgetBytes } = this.#options;
    const budget = Math.max(partitionBytes, budgetBytes / this.#following.size);
    const maxBytes = budget - led.reduce((sum, { queuedBytes }) => sum + queuedBytes, 0);
    if (maxBytes <= 0) return undefined;
    if (led.every(({ queuedBytes }) => queuedBytes === 0)) {
      return { parts: this.#inTurn(led), maxWaitMs: longPollMs, maxBytes };
    }
    const parts = led.filter(({ queuedBytes, next, highWatermark }) =>
      late ? queuedBytes === 0 : queuedBytes < partitionBytes && next! < highWatermark,
    );
    return parts.length === 0 ? undefined : { parts: this.#inTurn(parts), maxWaitMs: 0, maxBytes };
  }

  /** Another one first each time: a broker fills its answer in this order. */
  #inTurn(parts: readonly KafkaPartition[]): KafkaPartition[] {
    const first = this.#turn++ % parts.length;
    return [...parts.slice(first), ...parts.slice(0, first)];
  }

  async #fetch(leader: number, { parts, maxWaitMs, maxBytes }: Plan): Promise<void> {
    const asked = parts.map(({ topic, topicId, partition, next }) => ({
      topic: topic.name,
      ...(topicId === undefined ? {} : { topicId }),
      partition,
      offset: next!,
      maxBytes: partitionBytes,
    }));
    const answers = await fetchFrom(this.#options.cluster, leader, asked, {
      isolation: 'read_committed',
      maxWaitMs,
      maxBytes,
    });
    const byPlace = new Map(answers.map(answer => [`${answer.topic} ${answer.partition}`, answer]));
    let moved: Error | undefined;
    for (const [i, partition] of parts.entries()) {
      const answer = byPlace.get(`${partition.topic.name} ${partition.partition}`);
      // What a broker passes over has room in another answer.
      if (answer) moved = (await this.#take(partition, asked[i]!.offset, answer)) ?? moved;
    }
    if (moved) throw moved;
    this.#options.onTrouble(undefined);
    this.#wait = backoff(relocating);
  }

  /** Returns what asking elsewhere may mend. */
  async #take(partition: KafkaPartition, offset: bigint, answer: Fetched): Promise<Error | undefined> {
    const { errorCode } = answer;
    if (errorCode === ErrorCode.NONE) {
      try {
        partition.take(offset, answer, checkedBatches(answer.records));
      } catch (failure) {
        if (isRetriable(failure)) throw failure;
        partition.fail(failure as Error);
      }
      return undefined;
    }
    if (errorCode === ErrorCode.OFFSET_OUT_OF_RANGE) return this.#outOfRange(partition, offset);
    const error = new KafkaError(errorCode, `${partition.topic.name}-${partition.partition}`);
    if (error.retriable) return error;
    partition.fail(error);
    return undefined;
  }

  /** Only where the partition's own ends say so too: a leader that has just begun may not know its end yet. */
  async #outOfRange(partition: KafkaPartition, offset: bigint): Promise<Error | undefined> {
    const { cluster } = this.#options;
    const { name } = partition.topic;
    const at = async (timestamp: bigint) =>
      (await listOffsets(cluster, name, [partition.partition], timestamp)).get(partition.partition)!;
    const [start, end] = [await at(earliest), await at(latest)];
    if (start <= offset && offset <= end) return new KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE, name);
    if (partition.next === offset) partition.miss(start, end);
    return undefined;
  }

  /** Looks up the leaders anew, after a while; those who ask meanwhile share it. */
  async #relocate(error: Error): Promise<void> {
    this.#relocation ??= this.#lookUp(error).finally(() => {
      this.#relocation = undefined;
    });
    return this.#relocation;
  }

  async #lookUp(error: Error): Promise<void> {
    const { cluster, partitions, onTrouble } = this.#options;
    onTrouble(error);
    for (;;) {
      await this.#wait(cluster.closing);
      if (cluster.isClosed) return;
      try {
        await cluster.refresh(true);
        const topics = new Set(partitions.map(({ topic }) => topic));
        const layouts = new Map(
          (await cluster.layouts(Array.from(topics, ({ name }) => name))).map(layout => [layout.name, layout]),
        );
        for (const partition of partitions) {
          const layout = layouts.get(partition.topic.name);
          if (layout && (partition.topicId === undefined || layout.topicId === partition.topicId)) continue;
          partition.deleted = true;
          partition.wake();
        }
        break;
      } catch (again) {
        if (cluster.isClosed) return;
        if (!isRetriable(again)) {
          this.#fail(again as Error);
          return;
        }
        onTrouble(again as Error);
      }
    }
    // After this relocation has ended: a partition without a leader begins another.
    setImmediate(() => this.#assign());
  }

  /** False where nobody pokes within `ms`. */
  #pokedWithin(ms: number): Promise<boolean> {
    const { closing } = this.#options.cluster;
    return new Promise(resolve => {
      const end = (poked: boolean): void => {
        clearTimeout(timer);
        this.#poked.delete(awake);
        closing.removeEventListener('abort', awake);
        resolve(poked);
      };
      const awake = (): void => end(true);
      const timer = setTimeout(() => end(false), ms);
      this.#poked.add(awake);
      closing.addEventListener('abort', awake);
    });
  }
}
