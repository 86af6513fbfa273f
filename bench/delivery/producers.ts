// The demo's three services, by a client that costs less than the demo's. Every event is for somebody who is connected.
import { now } from '../../examples/notifications/notification.ts';
import { Service, services } from '../../examples/notifications/service.ts';
import { buildBatch } from '../../src/protocol/records.ts';
import { TopicWriter } from '../clients/topic-writer.ts';

export const partitions = 6;
const tickMs = 10;
/** Of a backlog, in a batch. */
const backlogBatch = 250;

export interface EventTopic {
  readonly bootstrap: string;
  readonly topic: string;
  /** Whom the events are for. */
  readonly users: number;
}

/** One service's batches of a moment, a user's events in one partition. */
async function sendSome(writer: TopicWriter, service: Service, users: number, count: number): Promise<void> {
  const byPartition = Array.from(
    { length: partitions },
    () => [] as { timestamp: bigint; key: Buffer; value: Buffer }[],
  );
  const timestamp = BigInt(Math.floor(now()));
  for (let i = 0; i < count; i++) {
    const user = Math.floor(Math.random() * users);
    const event = service.next(user);
    const record = { timestamp, key: Buffer.from(event.user_id), value: Buffer.from(JSON.stringify(event)) };
    byPartition[user % partitions]!.push(record);
  }
  for (const [partition, records] of byPartition.entries()) {
    if (records.length > 0) await writer.write(partition, buildBatch({ records }));
  }
}

/** Sends until it is stopped, open loop: what was due while a send took its time goes with the next. */
export class Producers {
  readonly #topic: EventTopic;
  readonly #perService: number;
  readonly #services: { readonly service: Service; readonly writer: TopicWriter }[] = [];
  readonly #sending: Promise<void>[] = [];
  #began = 0;
  #stopping = false;
  /** How long events have been sent, s. */
  seconds = 0;

  private constructor(topic: EventTopic, rate: number) {
    this.#topic = topic;
    this.#perService = rate / services.length;
  }

  static async start(topic: EventTopic, rate: number): Promise<Producers> {
    const producers = new Producers(topic, rate);
    for (const name of services) {
      const writer = await TopicWriter.open(topic.bootstrap, topic.topic, partitions);
      producers.#services.push({ service: new Service(name), writer });
    }
    producers.#began = performance.now();
    producers.#sending.push(...producers.#services.map(({ service, writer }) => producers.#send(service, writer)));
    return producers;
  }

  get sent(): number {
    return this.#services.reduce((sum, { service }) => sum + service.made, 0);
  }

  /** Resolves when everything is acknowledged. */
  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    await Promise.all(this.#sending);
    this.seconds = (performance.now() - this.#began) / 1000;
    await Promise.all(this.#services.map(({ writer }) => writer.close()));
  }

  async #send(service: Service, writer: TopicWriter): Promise<void> {
    while (!this.#stopping) {
      const due = Math.floor(((performance.now() - this.#began) / 1000) * this.#perService) - service.made;
      if (due > 0) await sendSome(writer, service, this.#topic.users, due);
      await new Promise(resolve => setTimeout(resolve, tickMs));
    }
  }
}

/** Puts so many events into the topic. */
export async function sendBacklog({ bootstrap, topic, users }: EventTopic, count: number): Promise<void> {
  await Promise.all(
    services.map(async (name, i) => {
      const writer = await TopicWriter.open(bootstrap, topic, partitions);
      const service = new Service(name);
      const own = Math.floor(count / services.length) + (i < count % services.length ? 1 : 0);
      while (service.made < own) {
        await sendSome(writer, service, users, Math.min(backlogBatch * partitions, own - service.made));
      }
      await writer.close();
    }),
  );
}
