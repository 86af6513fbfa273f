// Kafka Connect with Debezium's JDBC sink on Apache Kafka, in each of the ways it writes fastest. The topic is Kafka's, the
// table the one that all write to. Plain JSON is given a schema by the converter (schema.content, KIP-1054).
import { join } from 'node:path';
import { type KafkaServer, kafkaVersion, startKafka } from '../../compat/kafka/kafka.ts';
import { ConnectWorker, connectVersion, heap } from '../peers/connect.ts';
import { patience } from '../peers/kafka.ts';
import type { Processes } from '../processes.ts';
import { load } from './load.ts';
import type { SinkScenario } from './scenarios.ts';
import { type SinkSystem, type SinkSystemContext, seed, synchronousCommit, topicOf } from './system.ts';

const jdbcSinkVersion = '3.6.0.Final';
/** Aiven's is not on Maven Central. */
const plugin = {
  name: `connect-jdbc-${jdbcSinkVersion}`,
  artifacts: [`io.debezium:debezium-connector-jdbc:${jdbcSinkVersion}:tar.gz:plugin`],
};
const json = 'org.apache.kafka.connect.json.JsonConverter';

/** What the JVMs of all variants are: started once. */
export class ConnectCluster {
  readonly #context: SinkSystemContext;
  readonly #loaded = new Set<string>();
  #kafka: KafkaServer | undefined;
  #worker: ConnectWorker | undefined;

  constructor(context: SinkSystemContext) {
    this.#context = context;
  }

  async start(): Promise<void> {
    const { directory } = this.#context;
    this.#kafka = await startKafka({ dataDir: join(directory, 'kafka'), overrides: patience });
    const { bootstrap } = this.#kafka;
    this.#worker = await ConnectWorker.start({
      bootstrap,
      directory: join(directory, 'connect'),
      plugin,
      converter: json,
    });
  }

  async stop(): Promise<void> {
    await this.#worker?.stop();
    await this.#kafka?.stop();
  }

  get worker(): ConnectWorker {
    return this.#worker!;
  }

  get kafkaPid(): number {
    return this.#kafka!.pid;
  }

  pids(): number[] {
    return [this.#kafka?.pid, this.#worker?.pid].filter(pid => pid !== undefined);
  }

  async load(scenario: SinkScenario, records: number): Promise<void> {
    const topic = topicOf(scenario);
    if (this.#loaded.has(topic)) return;
    this.#loaded.add(topic);
    await load(this.#kafka!.bootstrap, topic, { ...scenario, seed }, records);
  }
}

export interface JdbcVariant {
  /** A statement for a batch, with an array for each column; otherwise multi-row VALUES, rewritten by the driver. */
  readonly unnest: boolean;
  readonly tasks: number;
}

const batchSize = 3000;

const struct = (fields: readonly object[]) => JSON.stringify({ type: 'struct', optional: false, fields });
/** For JSON without schemas, where the time is text. */
const schemaContent = {
  key: struct([
    { field: 'device_id', type: 'string', optional: false },
    { field: 'metric_name', type: 'int16', optional: false },
    { field: 'published_at', type: 'string', optional: false, name: 'io.debezium.time.ZonedTimestamp' },
  ]),
  value: struct([
    { field: 'value', type: 'double', optional: false },
    { field: 'tags', type: 'array', optional: false, items: { type: 'string', optional: false } },
  ]),
};

export class JdbcSink implements SinkSystem {
  readonly name: string;
  readonly description: string;
  readonly #cluster: ConnectCluster;
  readonly #table: SinkSystemContext['table'];
  readonly #variant: JdbcVariant;
  #connectors = 0;

  constructor(cluster: ConnectCluster, { table }: SinkSystemContext, variant: JdbcVariant & { readonly name: string }) {
    const { name, unnest, tasks } = variant;
    this.name = name;
    const how = unnest ? 'arrays and UNNEST' : 'multi-row VALUES (reWriteBatchedInserts)';
    this.description = `Kafka Connect ${connectVersion}, Debezium's JDBC sink ${jdbcSinkVersion}, ${how}, tasks.max ${tasks}, from Apache Kafka ${kafkaVersion}`;
    this.#cluster = cluster;
    this.#table = table;
    this.#variant = variant;
  }

  pids(): number[] {
    return this.#cluster.pids();
  }

  get sink(): Processes {
    return { roots: [this.#cluster.worker.pid] };
  }

  get broker(): Processes {
    return { roots: [this.#cluster.kafkaPid] };
  }

  async prepare(scenario: SinkScenario, records: number): Promise<void> {
    await this.#cluster.load(scenario, records);
  }

  async begin(scenario: SinkScenario): Promise<void> {
    // A new name is a new consumer group, which begins at the first record.
    this.#connectors++;
    await this.#cluster.worker.create(this.#connector, this.#config(scenario));
  }

  get #connector(): string {
    return `${this.name}-${this.#connectors}`;
  }

  async failed(): Promise<string | undefined> {
    return this.#cluster.worker.failed(this.#connector);
  }

  async end(): Promise<void> {
    await this.#cluster.worker.delete(this.#connector);
  }

  async describe(): Promise<Record<string, string>> {
    const { 'connection.url': url, ...config } = this.#config(undefined);
    return { heap, 'connection.url': url!.replace(/:\/\/[^?]*/, '://…'), ...config };
  }

  #config(scenario: SinkScenario | undefined): Record<string, string> {
    const { host, database, user, password } = this.#table.tcp;
    const { unnest, tasks } = this.#variant;
    const parameters = `?${unnest ? '' : 'reWriteBatchedInserts=true&'}options=-c%20synchronous_commit=${synchronousCommit}`;
    return {
      'connector.class': 'io.debezium.connector.jdbc.JdbcSinkConnector',
      'connection.url': `jdbc:postgresql://${host}/${database}${parameters}`,
      'tasks.max': String(tasks),
      'primary.key.mode': 'record_key',
      'schema.evolution': 'none',
      'collection.name.format': 'metrics',
      'batch.size': String(batchSize),
      'consumer.override.max.poll.records': String(batchSize),
      'consumer.override.max.partition.fetch.bytes': '8388608',
      'consumer.override.auto.offset.reset': 'earliest',
      ...(unnest ? { 'dialect.postgres.unnest.insert.enabled': 'true', 'field.exclude.list': 'tags' } : {}),
      ...(scenario && {
        topics: topicOf(scenario),
        'connection.username': user,
        'connection.password': password,
        'insert.mode': scenario.mode,
        'use.reduction.buffer': String(scenario.repeats > 0),
        ...(scenario.schemas
          ? {}
          : {
              'key.converter': json,
              'key.converter.schema.content': schemaContent.key,
              'value.converter': json,
              'value.converter.schema.content': schemaContent.value,
            }),
      }),
    };
  }
}
