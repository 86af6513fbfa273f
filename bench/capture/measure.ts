// One measurement each: a backlog drained, changes as they come, records of kafka.produce, a large transaction.
import { type Latencies, librdkafka } from '../clients/librdkafka.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Sample } from '../peers/system.ts';
import { cpuSeconds, peakMb, resetPeak } from '../processes.ts';
import type { Pipeline } from './pipeline.ts';
import type { CaptureScenario, CaptureSizes } from './scenarios.ts';
import type { Backlog, CapturedTable, CaptureSource } from './source.ts';

const million = 1e6;
/** The part of a backlog that is drained before the clock starts: a JVM gets warm in it. */
const warmupShare = 1 / 3;

export class CaptureBench {
  readonly #millrace: Millrace;
  readonly #source: CaptureSource;

  constructor(millrace: Millrace, source: CaptureSource) {
    this.#millrace = millrace;
    this.#source = source;
  }

  async drain(pipeline: Pipeline, backlog: Backlog): Promise<Sample> {
    const source = this.#source;
    const topic = pipeline.topicOf('backlog');
    await source.copySlot(pipeline.slotOf('backlog'));
    return this.#withTopic(pipeline, 'backlog', async () => {
      await source.settle();
      await pipeline.start('backlog', 'throughput');
      resetPeak(pipeline.process);
      await source.reached(topic, Math.floor(backlog.records * warmupShare), () => pipeline.failed());
      const [first, begun, spent] = [await source.records(topic), performance.now(), this.#spending(pipeline)];
      await source.reached(topic, backlog.records, () => pipeline.failed());
      const seconds = (performance.now() - begun) / 1000;
      const changes = ((backlog.records - first) / backlog.records) * backlog.changes;
      return { changes_per_s: changes / seconds, ...spent(changes), peak_rss_mb: peakMb(pipeline.process) };
    });
  }

  /** All rates one after the other, in one run of the pipeline. */
  async live(
    pipeline: Pipeline,
    scenarios: readonly CaptureScenario[],
    { seconds, warmupSeconds }: CaptureSizes,
  ): Promise<[CaptureScenario, Sample][]> {
    const source = this.#source;
    await source.createSlot(pipeline.slotOf('live'));
    return this.#withTopic(pipeline, 'live', async () => {
      await pipeline.start('live', 'latency');
      await source.insertLive({ rate: 5000, perTransaction: 10 }, warmupSeconds);
      const samples: [CaptureScenario, Sample][] = [];
      for (const scenario of scenarios) {
        await source.settle();
        resetPeak(pipeline.process);
        const watched = librdkafka<Pick<Latencies, 'end_to_end' | 'records'>>('lag', {
          bootstrap: this.#millrace.bootstrap,
          topic: pipeline.topicOf('live'),
          partitions: 1,
          warmup: 2,
          seconds,
        });
        await source.insertLive(scenario, seconds + 3);
        const { end_to_end, records } = await watched;
        samples.push([
          scenario,
          {
            changes_per_s: records / seconds,
            p50_ms: end_to_end.p50,
            p95_ms: end_to_end.p95,
            p99_ms: end_to_end.p99,
            p999_ms: end_to_end.p999,
            peak_rss_mb: peakMb(pipeline.process),
          },
        ]);
      }
      return samples;
    });
  }

  /** Records a second, from the first transaction's begin until the last record is in the log. */
  async produce({ name, perTransaction }: CaptureScenario, { seconds }: CaptureSizes): Promise<Sample> {
    const source = this.#source;
    const topic = `bench-${name}-${Date.now()}`;
    const { bootstrap } = this.#millrace;
    await librdkafka('create', { bootstrap, topic, partitions: 1 });
    const call = `SELECT kafka.produce('${topic}', '${'x'.repeat(100)}')`;
    const script = perTransaction === 1 ? `${call};` : `${call} FROM generate_series(1, ${perTransaction});`;
    try {
      const begun = performance.now();
      const spent = this.#spending(undefined);
      const records = perTransaction * (await source.pgbench(script, ['-c', '10', '-j', '2', '-T', String(seconds)]));
      const written = (performance.now() - begun) / 1000;
      await source.reached(topic, records);
      const taken = (performance.now() - begun) / 1000;
      return { records_per_s: records / taken, behind_ms: (taken - written) * 1000, ...spent(records) };
    } finally {
      await librdkafka('delete', { bootstrap, topic });
    }
  }

  /** The peak while a transaction of so many rows is in flight, and until it is in the log. */
  async transaction(pipeline: Pipeline, { transactionRows }: CaptureSizes): Promise<Sample> {
    const source = this.#source;
    const slot = pipeline.slotOf('big');
    await source.createSlot(slot);
    return this.#withTopic(pipeline, 'big', async () => {
      await pipeline.start('big', 'throughput');
      await source.settle();
      resetPeak(pipeline.process);
      const open = await source.openTransaction(transactionRows);
      await source.sent(slot, await source.walPosition());
      const inFlight = peakMb(pipeline.process);
      const [begun, spent] = [performance.now(), this.#spending(pipeline)];
      await open.commit();
      await source.reached(pipeline.topicOf('big'), transactionRows, () => pipeline.failed());
      const seconds = (performance.now() - begun) / 1000;
      return {
        changes_per_s: transactionRows / seconds,
        ...spent(transactionRows),
        in_flight_rss_mb: inFlight,
        peak_rss_mb: peakMb(pipeline.process),
      };
    });
  }

  async #withTopic<T>(pipeline: Pipeline, table: CapturedTable, work: () => Promise<T>): Promise<T> {
    const { bootstrap } = this.#millrace;
    const topic = pipeline.topicOf(table);
    await librdkafka('create', { bootstrap, topic, partitions: 1 });
    try {
      return await work();
    } finally {
      await pipeline.stop();
      await this.#source.dropSlot(pipeline.slotOf(table));
      await librdkafka('delete', { bootstrap, topic });
    }
  }

  /** Of broker and Postgres, and of a pipeline that is a process of its own. */
  #spending(pipeline: Pipeline | undefined): (records: number) => Sample {
    const { broker, postgres } = this.#millrace.payers;
    const own = pipeline?.process;
    const isBroker = own === undefined || own.roots.every(pid => broker.roots.includes(pid));
    const read = () => [cpuSeconds(broker), cpuSeconds(postgres), isBroker ? 0 : cpuSeconds(own)] as const;
    const before = read();
    return records => {
      const after = read();
      const [ofBroker, ofPostgres, ofClient] = after.map((cpu, i) => ((cpu - before[i]!) / records) * million) as [
        number,
        number,
        number,
      ];
      return {
        cpu_s_per_million: ofBroker + ofPostgres + ofClient,
        broker_cpu_s_per_million: ofBroker,
        postgres_cpu_s_per_million: ofPostgres,
        ...(isBroker ? {} : { client_cpu_s_per_million: ofClient }),
      };
    };
  }
}
