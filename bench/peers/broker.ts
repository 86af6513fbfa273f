// What a Kafka broker is asked to do, whichever broker it is: a topic for each round, the client, the cost.

import { startIdleConsumers } from '../clients/idle.ts';
import { consumeWithJava, produceWithJava } from '../clients/java.ts';
import { type Consumed, type Latencies, librdkafka, type Produced, type Tailed } from '../clients/librdkafka.ts';
import { payloadFile } from '../clients/payloads.ts';
import type { Scenario, Work } from '../scenario.ts';
import { type Payers, startCost } from './cost.ts';
import type { Sample, System } from './system.ts';

const MB = 1e6;
/** Stored records are written in full batches, as a busy producer leaves them. */
const storingBatchBytes = 65_536;

/** Records that wait in the clients, all together; in each that does not batch. Few enough to be flushed soon. */
const mostQueued = 300_000;
const queuedUnbatched = 100;

const readsStored: readonly Work[] = ['consume-warm', 'consume-cold', 'startup'];
/** Those that idle consumers wait on. */
const idlePartitions = 10;

export abstract class Broker implements System {
  abstract readonly name: string;
  abstract readonly description: string;
  abstract readonly bootstrap: string;
  /** A broker started for this run: pids of the broker, and of its Postgres if it has one. */
  protected abstract readonly brokerPids: number[];
  protected readonly postgresPids: number[] = [];
  /** Of its Postgres, for the WAL it writes. */
  protected readonly databaseUrl: string | undefined;
  /** The mean size of the batches the client made, by scenario: what raw COPY is given. */
  readonly batchBytes = new Map<string, number>();
  #topics = 0;
  readonly #stored = new Map<string, { topic: string; records: number }>();

  abstract start(): Promise<void>;
  abstract stop(): Promise<void>;
  abstract describe(): Promise<Record<string, string>>;
  /** Everything that was cached is gone when this resolves: the page cache, and the system's own. */
  protected abstract makeCold(): Promise<void>;
  /** Bytes on disk of what a topic stores, indexes included. */
  protected abstract diskBytes(topic: string): Promise<number>;

  can(): boolean {
    return true;
  }

  processes(): number[] {
    return [...this.brokerPids, ...this.postgresPids];
  }

  async prepare(scenario: Scenario): Promise<void> {
    if (!readsStored.includes(scenario.work)) return;
    const topic = await this.#createTopic(scenario);
    const records = Math.round(scenario.storedBytes / scenario.recordBytes);
    const producing = { ...scenario, producers: 1, lingerMs: 50, batchBytes: storingBatchBytes };
    const stored = await librdkafka<Produced>('produce', { ...this.#arguments(producing, topic), seconds: 0, records });
    this.#stored.set(scenario.name, { topic, records: stored.records });
  }

  async clear(scenario: Scenario): Promise<void> {
    const stored = this.#stored.get(scenario.name);
    if (!stored) return;
    this.#stored.delete(scenario.name);
    await this.#deleteTopic(stored.topic);
  }

  async measure(scenario: Scenario): Promise<Sample> {
    switch (scenario.work) {
      case 'produce':
        return this.#withTopic(scenario, topic => this.#produce(scenario, topic));
      case 'consume-tail':
        return this.#withTopic(scenario, topic => this.#tail(scenario, topic));
      case 'latency':
        return this.#withTopic(scenario, topic => this.#besideIdle(scenario, () => this.#latency(scenario, topic)));
      case 'consume-cold':
        await this.makeCold();
        return this.#consume(scenario);
      case 'consume-warm':
        return this.#consume(scenario);
      case 'startup':
        return this.#restart(scenario);
    }
  }

  async #produce(scenario: Scenario, topic: string): Promise<Sample> {
    const cost = await startCost(this.payers);
    if (scenario.client === 'java') {
      const { recordsPerSecond, sent, cpu_s } = await produceWithJava(this.bootstrap, topic, scenario);
      return { ...rates(recordsPerSecond, 1, scenario), ...(await cost(sent, scenario, cpu_s)) };
    }
    const produced = await librdkafka<Produced>('produce', this.#arguments(scenario, topic));
    if (produced.batch_bytes > 0) this.batchBytes.set(scenario.name, Math.round(produced.batch_bytes));
    return {
      ...rates(produced.records, produced.seconds, scenario),
      ...(await cost(produced.records, scenario, produced.cpu_s)),
      disk_bytes_per_record: (await this.diskBytes(topic)) / produced.records,
      batch_bytes: produced.batch_bytes,
    };
  }

  async #tail(scenario: Scenario, topic: string): Promise<Sample> {
    const cost = await startCost(this.payers);
    const tailed = await librdkafka<Tailed>('tail', this.#arguments(scenario, topic));
    return {
      ...rates(tailed.consumed, tailed.consumed_seconds, scenario),
      ...(await cost(tailed.records, scenario, tailed.cpu_s)),
    };
  }

  async #consume(scenario: Scenario): Promise<Sample> {
    const { topic, records } = this.#stored.get(scenario.name)!;
    const cost = await startCost({ ...this.payers, databaseUrl: undefined });
    if (scenario.client === 'java') {
      const consumed = await consumeWithJava(this.bootstrap, topic, records);
      return {
        ...rates(consumed.recordsPerSecond, 1, scenario),
        ...(await cost(consumed.records, scenario, consumed.cpu_s)),
      };
    }
    const { partitions, consumers, seconds } = scenario;
    const values = { bootstrap: this.bootstrap, topic, partitions, consumers, records, seconds: seconds * 4 };
    const consumed = await librdkafka<Consumed>('consume', values);
    return {
      ...rates(consumed.records, consumed.seconds, scenario),
      ...(await cost(consumed.records, scenario, consumed.cpu_s)),
    };
  }

  /** From the order to start until a client, started once the system says it is ready, has its acknowledgement. */
  async #restart(scenario: Scenario): Promise<Sample> {
    const { topic } = this.#stored.get(scenario.name)!;
    await this.stop();
    const begun = performance.now();
    await this.start();
    await librdkafka<Produced>('produce', { ...this.#arguments(scenario, topic), seconds: 0, records: 1 });
    return { start_ms: performance.now() - begun };
  }

  async #latency(scenario: Scenario, topic: string): Promise<Sample> {
    const cost = await startCost(this.payers);
    if (scenario.client === 'java') {
      const { ack, sent, cpu_s } = await produceWithJava(this.bootstrap, topic, scenario);
      return { ...acknowledgements(ack), ...(await cost(sent, scenario, cpu_s)) };
    }
    const values = { ...this.#arguments(scenario, topic), rate: scenario.rate, warmup: 1 };
    const { ack, end_to_end, records, unacknowledged, failed, received, cpu_s } = await librdkafka<Latencies>(
      'latency',
      values,
    );
    if (unacknowledged + failed > 0 || received < records * scenario.consumers) {
      process.stderr.write(`  ${this.name}: ${unacknowledged} of ${records} unacknowledged, ${received} received\n`);
    }
    return {
      p50_ms: end_to_end.p50,
      p95_ms: end_to_end.p95,
      p99_ms: end_to_end.p99,
      p999_ms: end_to_end.p999,
      ...acknowledgements(ack),
      ...(await cost(records, scenario, cpu_s)),
    };
  }

  async #besideIdle(scenario: Scenario, work: () => Promise<Sample>): Promise<Sample> {
    const { idleConsumers: consumers } = scenario;
    if (consumers === 0) return work();
    return this.#withTopic({ ...scenario, partitions: idlePartitions }, async topic => {
      const stop = await startIdleConsumers({
        bootstrap: this.bootstrap,
        topic,
        partitions: idlePartitions,
        consumers,
      });
      try {
        return await work();
      } finally {
        await stop();
      }
    });
  }

  #arguments(scenario: Scenario, topic: string) {
    return {
      bootstrap: this.bootstrap,
      topic,
      payloads: payloadFile(scenario.recordBytes),
      size: scenario.recordBytes,
      partitions: scenario.partitions,
      producers: scenario.producers,
      consumers: scenario.consumers,
      seconds: scenario.seconds,
      acks: 'all',
      linger: scenario.lingerMs,
      codec: scenario.codec,
      idempotent: scenario.idempotent,
      'batch-bytes': scenario.batchBytes,
      'batch-records': scenario.batchRecords,
      'in-flight': scenario.inFlight,
      'queue-records': scenario.batchRecords === 1 ? queuedUnbatched : Math.round(mostQueued / scenario.producers),
    };
  }

  get payers(): Payers {
    return {
      broker: { roots: this.brokerPids, without: this.postgresPids },
      postgres: { roots: this.postgresPids },
      databaseUrl: this.databaseUrl,
    };
  }

  async #withTopic(scenario: Scenario, work: (topic: string) => Promise<Sample>): Promise<Sample> {
    const topic = await this.#createTopic(scenario);
    try {
      return await work(topic);
    } finally {
      await this.#deleteTopic(topic);
    }
  }

  async #createTopic({ name, partitions }: Scenario): Promise<string> {
    const topic = `bench-${name}-${process.pid}-${this.#topics++}`;
    await librdkafka('create', { bootstrap: this.bootstrap, topic, partitions });
    return topic;
  }

  async #deleteTopic(topic: string): Promise<void> {
    await librdkafka('delete', { bootstrap: this.bootstrap, topic });
  }
}

function acknowledgements({ p50, p95, p99, p999 }: Record<'p50' | 'p95' | 'p99' | 'p999', number>): Sample {
  return { ack_p50_ms: p50, ack_p95_ms: p95, ack_p99_ms: p99, ack_p999_ms: p999 };
}

export function rates(records: number, seconds: number, scenario: Scenario): Sample {
  return { records_per_s: records / seconds, mb_per_s: (records * scenario.recordBytes) / seconds / MB };
}
