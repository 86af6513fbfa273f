// Writes record batches to a topic with Millrace's own client, which costs less than others.
import { createTopic, newProducerId } from '../../src/client/admin.ts';
import type { Cluster } from '../../src/client/cluster.ts';
import { Producer } from '../../src/client/producer.ts';
import { clusterAt } from './cluster.ts';

/** Not acknowledged, at most. */
const queuedBytes = 8 * 2 ** 20;

export class TopicWriter {
  readonly #cluster: Cluster;
  readonly #topic: string;
  readonly #producer: Producer;
  #failure: Error | undefined;
  #wake: () => void = () => {};
  #unacknowledged = 0;

  private constructor(cluster: Cluster, topic: string, producerId: bigint) {
    this.#cluster = cluster;
    this.#topic = topic;
    this.#producer = new Producer({ cluster, producerId, epoch: 0 });
  }

  /** Makes the topic where there is none. */
  static async open(bootstrap: string, topic: string, partitions: number): Promise<TopicWriter> {
    const cluster = clusterAt(bootstrap);
    await createTopic(cluster, { name: topic, partitionCount: partitions, replicationFactor: 1 });
    return new TopicWriter(cluster, topic, await newProducerId(cluster));
  }

  /** Resolves when there is room for more. */
  async write(partition: number, batch: Buffer): Promise<void> {
    this.#unacknowledged++;
    this.#producer
      .append(this.#topic, partition, batch)
      .catch((error: Error) => {
        this.#failure ??= error;
      })
      .finally(() => {
        this.#unacknowledged--;
        this.#wake();
      });
    await this.#until(() => this.#producer.queuedBytes < queuedBytes);
  }

  /** Resolves when everything is acknowledged. */
  async close(): Promise<void> {
    await this.#until(() => this.#unacknowledged === 0);
    this.#cluster.close();
  }

  async #until(done: () => boolean): Promise<void> {
    while (!done() && !this.#failure) {
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
    if (this.#failure) throw this.#failure;
  }
}
