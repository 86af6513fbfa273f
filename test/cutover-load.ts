// An ordinary idempotent producer (kafkajs) that goes on while what it writes to changes.
import kafkajs from 'kafkajs';

export class Load {
  readonly #sent: string[][];
  readonly #producer: kafkajs.Producer;
  readonly #waiting = new Set<() => void>();
  #count = 0;
  #failure: unknown;
  #running = true;
  #run: Promise<void> | undefined;

  private constructor(producer: kafkajs.Producer, partitions: number) {
    this.#producer = producer;
    this.#sent = Array.from({ length: partitions }, () => []);
  }

  static async start(address: string, topic: string, partitions: number): Promise<Load> {
    const client = new kafkajs.Kafka({
      brokers: [address],
      logLevel: kafkajs.logLevel.NOTHING,
      retry: { initialRetryTime: 20, maxRetryTime: 300, retries: 200 },
    });
    const producer = client.producer({ idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    const load = new Load(producer, partitions);
    load.#run = load.#go(topic);
    return load;
  }

  /** What has been given to a partition, in order; all of it is acknowledged once it has stopped. */
  sent(partition: number): readonly string[] {
    return this.#sent[partition]!;
  }

  /** Resolves when so many requests more have been acknowledged. */
  async acknowledged(more: number): Promise<void> {
    const goal = this.#count + more;
    while (this.#count < goal) {
      if (this.#failure) throw this.#failure;
      await new Promise<void>(resolve => this.#waiting.add(resolve));
    }
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#run;
    await this.#producer.disconnect();
    if (this.#failure) throw this.#failure;
  }

  async #go(topic: string): Promise<void> {
    try {
      for (let n = 0; this.#running; n++) {
        const partition = n % this.#sent.length;
        const messages = [`${n}a`, `${n}b`].map(value => ({ value, partition }));
        this.#sent[partition]!.push(...messages.map(({ value }) => value));
        await this.#producer.send({ topic, acks: -1, messages });
        this.#count++;
        this.#wake();
      }
    } catch (error) {
      this.#failure = error;
      this.#wake();
    }
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}
