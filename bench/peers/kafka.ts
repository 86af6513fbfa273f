// Apache Kafka, one node on this machine, from Maven Central (compat/kafka). As it comes it acknowledges from the page
// cache; `kafka-flush` makes it flush every append to disk before it acknowledges, which is what a COMMIT promises.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type KafkaServer, kafkaVersion, startKafka } from '../../compat/kafka/kafka.ts';
import { evict } from '../clients/librdkafka.ts';
import { Broker } from './broker.ts';

/** What stat counts in. */
const blockBytes = 512;

/** For one that is stopped with SIGSTOP while others are measured: its controller must not take it for dead afterwards. */
export const patience = { 'broker.session.timeout.ms': '3600000', 'log.retention.ms': '-1' };

export class Kafka extends Broker {
  readonly name: string;
  readonly description: string;
  bootstrap = '';
  protected override brokerPids: number[] = [];
  readonly #directory: string;
  readonly #flush: boolean;
  #server: KafkaServer | undefined;

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
    this.#server = await startKafka({ dataDir: this.#directory, overrides: this.#overrides });
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
    const logs = join(this.#directory, 'log');
    const directories = readdirSync(logs).filter(name => name.startsWith(`${topic}-`));
    const files = directories.flatMap(name => readdirSync(join(logs, name)).map(file => join(logs, name, file)));
    return files.reduce((sum, file) => sum + statSync(file).blocks * blockBytes, 0);
  }

  get #overrides(): Record<string, string> {
    return this.#flush ? { ...patience, 'log.flush.interval.messages': '1' } : patience;
  }
}
