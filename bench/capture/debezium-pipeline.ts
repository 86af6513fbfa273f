// Debezium's embedded engine, into Millrace's log over the Kafka port: a JVM that is started for each measurement, since
// what it does beside others would cost them.
import { join } from 'node:path';
import { type Debezium, debeziumIsMissing, debeziumVersion, startDebezium } from '../../compat/debezium/debezium.ts';
import { none } from '../peers/cost.ts';
import type { Processes } from '../processes.ts';
import type { Pipeline, PipelineContext, Tuning } from './pipeline.ts';
import type { CapturedTable } from './source.ts';

/** The best that were found for each. */
const tunings: Record<Tuning, Record<string, string>> = {
  throughput: {
    'max.batch.size': '16384',
    'max.queue.size': '65536',
    'poll.interval.ms': '10',
    'producer.linger.ms': '10',
    'producer.batch.size': '262144',
  },
  latency: { 'poll.interval.ms': '1', 'producer.linger.ms': '0' },
};
const heap = '1G';

export class DebeziumPipeline implements Pipeline {
  readonly name = 'debezium';
  readonly description = `Debezium ${debeziumVersion}, embedded engine, into Millrace's log over the Kafka protocol`;
  readonly #context: PipelineContext;
  #running: Debezium | undefined;

  /** Throws where it cannot run. */
  constructor(context: PipelineContext) {
    const missing = debeziumIsMissing();
    if (missing !== undefined) throw new Error(missing);
    this.#context = context;
  }

  slotOf(table: CapturedTable): string {
    return `bench_java_${table}`;
  }

  topicOf(table: CapturedTable): string {
    return `java.public.${table}`;
  }

  get process(): Processes {
    return this.#running === undefined ? none : { roots: [this.#running.pid] };
  }

  async start(table: CapturedTable, tuning: Tuning): Promise<void> {
    const { source, bootstrap, directory } = this.#context;
    const { host, port, database, user, password } = source.tcp;
    this.#running = await startDebezium({
      to: `kafka:${bootstrap}`,
      directory: join(directory, 'debezium'),
      heap,
      properties: {
        'database.hostname': host,
        'database.port': port,
        'database.dbname': database,
        'database.user': user,
        'database.password': password,
        'topic.prefix': 'java',
        'table.include.list': `public.${table}`,
        'publication.name': `bench_${table}`,
        'publication.autocreate.mode': 'disabled',
        'slot.name': this.slotOf(table),
        'snapshot.mode': 'no_data',
        'key.converter.schemas.enable': 'false',
        'value.converter.schemas.enable': 'false',
        'converter.schemas.enable': 'false',
        'producer.acks': 'all',
        ...tunings[tuning],
      },
    });
  }

  async stop(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.stop();
  }

  failed(): string | undefined {
    return undefined;
  }

  async describe(): Promise<Record<string, string>> {
    const shown = (tuning: Tuning) =>
      Object.entries(tunings[tuning])
        .map(([name, value]) => `${name}=${value}`)
        .join(', ');
    return {
      jvm: `-Xms${heap} -Xmx${heap}, G1`,
      'tuned for throughput': shown('throughput'),
      'for latency': shown('latency'),
    };
  }
}
