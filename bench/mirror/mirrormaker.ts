// MirrorMaker 2: its source connector in a Connect worker of the target's cluster, one JVM that stays over all rounds. Its
// source is an Apache Kafka on this machine, or Millrace. Each copy is a connector with another alias of the source, so it
// begins at the first record and has a topic of its own.
import type { KafkaServer } from '../../compat/kafka/kafka.ts';
import { type ConnectWorker, connectVersion, heap } from '../peers/connect.ts';
import { none } from '../peers/cost.ts';
import type { Millrace } from '../peers/millrace.ts';
import { type Processes, treeOf } from '../processes.ts';
import type { MirrorWork } from './scenarios.ts';
import type { MirrorSystem } from './system.ts';

export const plugin = {
  name: `connect-mirror-${connectVersion}`,
  artifacts: [
    `org.apache.kafka:connect-mirror:${connectVersion}`,
    `org.apache.kafka:connect-mirror-client:${connectVersion}`,
  ],
};
export const converter = 'org.apache.kafka.connect.converters.ByteArrayConverter';

/** Heartbeats and checkpoints are connectors of their own, and not made. */
const settings = {
  'connector.class': 'org.apache.kafka.connect.mirror.MirrorSourceConnector',
  'tasks.max': '1',
  'replication.factor': '1',
  'emit.offset-syncs.enabled': 'false',
  'sync.topic.configs.enabled': 'false',
  'sync.topic.acls.enabled': 'false',
  'refresh.topics.interval.seconds': '5',
  'source.consumer.max.poll.records': '10000',
  'source.consumer.max.partition.fetch.bytes': '8388608',
};
/** What it does best with. */
const tuned: Readonly<Record<MirrorWork, Readonly<Record<string, string>>>> = {
  copy: { 'producer.override.linger.ms': '10', 'producer.override.batch.size': '524288' },
  lag: { 'producer.override.linger.ms': '0' },
  compare: {},
};

export interface MirrorMakerSource {
  /** What the system is called. */
  readonly name: string;
  readonly description: string;
  readonly bootstrap: string;
  pids(): number[];
  readonly broker: Processes;
  readonly postgres: Processes;
}

export class MirrorMaker implements MirrorSystem {
  readonly name: string;
  readonly description: string;
  readonly #source: MirrorMakerSource;
  readonly #worker: ConnectWorker;
  readonly #target: string;
  #copies = 0;

  constructor(worker: ConnectWorker, source: MirrorMakerSource, target: string) {
    this.name = source.name;
    this.description = `MirrorMaker 2 of Kafka ${connectVersion}, tuned, one JVM; its source is ${source.description}`;
    this.#worker = worker;
    this.#source = source;
    this.#target = target;
  }

  get bootstrap(): string {
    return this.#source.bootstrap;
  }

  pids(): number[] {
    return [this.#worker.pid, ...this.#source.pids()];
  }

  get copier(): Processes {
    return { roots: [this.#worker.pid] };
  }

  get broker(): Processes {
    return this.#source.broker;
  }

  get postgres(): Processes {
    return this.#source.postgres;
  }

  async begin(topic: string, work: MirrorWork): Promise<string> {
    this.#copies++;
    await this.#worker.create(this.#alias, {
      ...settings,
      ...tuned[work],
      'source.cluster.alias': this.#alias,
      'target.cluster.alias': 'target',
      'source.cluster.bootstrap.servers': this.bootstrap,
      'target.cluster.bootstrap.servers': this.#target,
      topics: topic,
    });
    return `${this.#alias}.${topic}`;
  }

  get #alias(): string {
    return `${this.name}-${this.#copies}`;
  }

  async failed(): Promise<string | undefined> {
    return this.#worker.failed(this.#alias);
  }

  async end(): Promise<void> {
    await this.#worker.delete(this.#alias);
  }

  async describe(): Promise<Record<string, string>> {
    const lines = Object.entries(tuned).flatMap(([work, values]) =>
      Object.entries(values).map(([key, value]) => [`${key} (${work})`, value]),
    );
    return { heap, ...settings, ...Object.fromEntries(lines) };
  }
}

export const kafkaSource = ({ bootstrap, pid }: KafkaServer): MirrorMakerSource => ({
  name: 'mirrormaker2',
  description: 'an Apache Kafka on the same machine',
  bootstrap,
  pids: () => [pid],
  broker: { roots: [pid] },
  postgres: none,
});

export const millraceSource = (millrace: Millrace): MirrorMakerSource => ({
  name: 'mirrormaker2-millrace',
  description: 'Millrace',
  bootstrap: millrace.bootstrap,
  pids: () => treeOf(millrace.processes()),
  broker: millrace.payers.broker,
  postgres: millrace.payers.postgres,
});
