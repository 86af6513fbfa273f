// Apache Kafka, one node on this machine, from Maven Central (compat/kafka). As it comes it acknowledges from the page
// cache; `kafka-flush` makes it flush every append to disk before it acknowledges, which is what a COMMIT promises.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { freePorts, type KafkaServer, kafkaVersion, startKafka } from '../../compat/kafka/kafka.ts';
import { evict } from '../clients/librdkafka.ts';
import { Broker } from './broker.ts';

/** It is stopped with SIGSTOP while others are measured; its controller must not take it for dead afterwards. */
const patience = { 'broker.session.timeout.ms': '3600000', 'log.retention.ms': '-1' };

/** What stat(2) counts in; Kafka's index files are sparse. */
const blockBytes = 512;

export class Kafka extends Broker {
  readonly name: string;
  readonly description: string;
  bootstrap = '';
  protected override brokerPids: number[] = [];
  readonly #directory: string;
  readonly #flush: boolean;
  #server: KafkaServer | undefined;
  #port: number | undefined;

  constructor(directory: string, { flush }: { readonly flush: boolean }) {
    super();
    this.name = flush ? 'kafka-flush' : 'kafka';
    this.description = flush
      ? `Apache Kafka ${kafkaVersion}, flushing every append to disk`
      : `Apache Kafka ${kafkaVersion} as it comes, acknowledging from the page cache`;
    this.#directory = join(directory, this.name);
    this.#flush = flush;
  }

  async start(): Promise<void> {
    this.#port ??= (await freePorts(1))[0]!;
    this.#server = await startKafka({ dataDir: this.#directory, port: this.#port, overrides: this.#overrides });
    this.bootstrap = this.#server.bootstrap;
    this.brokerPids = [this.#server.pid];
  }

  async stop(): Promise<void> {
    this.brokerPids = [];
    await this.#server?.stop();
  }

  async describe(): Promise<Record<string, string>> {
    return { version: kafkaVersion, jvm: '-Xms1G -Xmx1G, G1', acks: 'all', ...this.#overrides };
  }

  /** It caches nothing itself. */
  protected async makeCold(): Promise<void> {
    await evict(this.#directory);
  }

  protected async diskBytes(topic: string): Promise<number> {
    const log = join(this.#directory, 'log');
    const partitions = readdirSync(log).filter(name => name.replace(/-\d+$/, '') === topic);
    const files = partitions.flatMap(name => readdirSync(join(log, name)).map(file => join(log, name, file)));
    return files.reduce((sum, file) => sum + statSync(file).blocks * blockBytes, 0);
  }

  get #overrides(): Record<string, string> {
    return this.#flush ? { ...patience, 'log.flush.interval.messages': '1' } : patience;
  }
}
