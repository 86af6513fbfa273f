// What the demonstration is told, by environment variables: the names and defaults of the pipeline it takes the place of,
// and METRICS_… of its own.
export interface DemoSettings {
  /** A PostgreSQL of one's own; the embedded one where there is none. */
  readonly postgresUrl: string | undefined;
  /** A Millrace (or Kafka) that runs already: then only the producer runs. */
  readonly kafkaUrl: string | undefined;
  readonly queueConcurrency: number;
  readonly minMetrics: number;
  readonly maxMetrics: number;
  readonly minDevices: number;
  readonly maxDevices: number;
  readonly batchSize: number;
  readonly maxInFlight: number;
  readonly publishIntervalMs: number;
  readonly partitions: number;
  readonly healthPort: number;
  /** Connect's schemas beside every key and value. */
  readonly schemas: boolean;
  /** Devices that there are; 0: always new ones. */
  readonly devices: number;
  /** Share of metrics that were sent before and come again with another value. */
  readonly repeats: number;
  /** Days of metrics to keep, in a partition for each; 0: one table, kept for ever. */
  readonly retentionDays: number;
  /** How long to produce; 0: until it is stopped. */
  readonly seconds: number;
  readonly dataDir: string;
}

export function readSettings(env: NodeJS.ProcessEnv): DemoSettings {
  const number = (name: string, otherwise: number): number => {
    const text = env[name];
    if (text === undefined || text === '') return otherwise;
    const value = Number(text);
    if (!Number.isFinite(value) || value < 0) throw new Error(`${name} is ${JSON.stringify(text)}; give a number`);
    return value;
  };
  return {
    postgresUrl: env.POSTGRES_URL || undefined,
    kafkaUrl: env.KAFKA_URL || undefined,
    queueConcurrency: number('PRODUCER_QUEUE_CONCURRENCY', 8),
    minMetrics: number('PRODUCER_MIN_METRICS', 2500),
    maxMetrics: number('PRODUCER_MAX_METRICS', 7500),
    minDevices: number('PRODUCER_MIN_DEVICES', 3),
    maxDevices: number('PRODUCER_MAX_DEVICES', 10),
    batchSize: number('KAFKA_BATCH_SIZE', 250),
    maxInFlight: number('KAFKA_MAX_IN_FLIGHT', 5),
    publishIntervalMs: number('PRODUCER_PUBLISH_INTERVAL', 250),
    partitions: number('TOPIC_PARTITIONS_METRICS', 6),
    healthPort: number('PRODUCER_PORT', 0),
    schemas: env.METRICS_SCHEMAS !== 'false',
    devices: number('METRICS_DEVICES', 0),
    repeats: number('METRICS_REPEATS', 0),
    retentionDays: number('METRICS_RETENTION_DAYS', 0),
    seconds: number('METRICS_SECONDS', 0),
    dataDir: env.METRICS_DATA_DIR || '.millrace/metrics',
  };
}
