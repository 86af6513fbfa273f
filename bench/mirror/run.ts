// npm run bench -- mirror: a topic copied to an Apache Kafka, by Millrace out of itself and by MirrorMaker 2 out of another
// Apache Kafka, and out of Millrace, in one run. Rounds are interleaved, the first of a copy is thrown away. The target is
// one broker for all; while one system is measured the processes of the others are stopped.
import { join } from 'node:path';
import { type KafkaServer, kafkaVersion, startKafka } from '../../compat/kafka/kafka.ts';
import { librdkafka, type Produced } from '../clients/librdkafka.ts';
import { payloadFile } from '../clients/payloads.ts';
import { ConnectWorker } from '../peers/connect.ts';
import { patience } from '../peers/kafka.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Sample } from '../peers/system.ts';
import { signalAll, whileStopped } from '../processes.ts';
import { type Measured, Samples, shown } from '../samples.ts';
import { MirrorBench } from './measure.ts';
import { MillraceMirror } from './millrace-mirror.ts';
import { converter, kafkaSource, MirrorMaker, millraceSource, plugin } from './mirrormaker.ts';
import { type MirrorScenario, type MirrorSizes, partitions, recordBytes } from './scenarios.ts';
import type { MirrorSystem } from './system.ts';

export interface MirrorRun {
  readonly millrace: Millrace;
  readonly directory: string;
  readonly scenarios: readonly MirrorScenario[];
  readonly sizes: MirrorSizes;
  readonly peers: readonly string[];
  /** The one that is thrown away included, where one is. */
  readonly rounds: number;
  readonly log: (line: string) => void;
}

export const mirrorPeers: readonly string[] = ['mirrormaker2', 'mirrormaker2-millrace'];

/** Before anything else: the JVMs of the target and of the peers are cold. */
const warmup: MirrorScenario = { name: 'warm-up', work: 'copy', records: 1_000_000, rate: 0 };
/** As a busy producer leaves them. */
const storedBatchBytes = 65_536;

export async function measureMirrors(run: MirrorRun): Promise<Measured> {
  const measuring = new Measuring(run);
  try {
    await measuring.start();
    return await measuring.all();
  } finally {
    await measuring.stop();
  }
}

class Measuring {
  readonly #run: MirrorRun;
  readonly #absent: Record<string, string> = {};
  readonly #samples = new Samples();
  readonly #systems: MirrorSystem[] = [];
  readonly #loaded = new Map<string, number>();
  #target: KafkaServer | undefined;
  #source: KafkaServer | undefined;
  #worker: ConnectWorker | undefined;
  #bench: MirrorBench | undefined;
  #millrace: MillraceMirror | undefined;

  constructor(run: MirrorRun) {
    this.#run = run;
  }

  async start(): Promise<void> {
    const { directory, millrace, peers } = this.#run;
    this.#target = await startKafka({ dataDir: join(directory, 'kafka-target'), overrides: patience });
    const { bootstrap } = this.#target;
    this.#bench = new MirrorBench(bootstrap);
    this.#millrace = new MillraceMirror(millrace, bootstrap);
    this.#systems.push(this.#millrace);
    if (!peers.some(peer => mirrorPeers.includes(peer))) return;
    try {
      const connect = join(directory, 'connect');
      this.#worker = await ConnectWorker.start({ bootstrap, directory: connect, plugin, converter });
      if (peers.includes('mirrormaker2')) {
        this.#source = await startKafka({ dataDir: join(directory, 'kafka-source'), overrides: patience });
        this.#systems.push(new MirrorMaker(this.#worker, kafkaSource(this.#source), bootstrap));
      }
      if (peers.includes('mirrormaker2-millrace')) {
        this.#systems.push(new MirrorMaker(this.#worker, millraceSource(millrace), bootstrap));
      }
    } catch (error) {
      this.#leaveOut('mirrormaker2', error as Error);
    }
  }

  async stop(): Promise<void> {
    for (const system of this.#systems) signalAll(system.pids(), 'SIGCONT');
    await this.#worker?.stop();
    await this.#source?.stop();
    await this.#target?.stop();
  }

  async all(): Promise<Measured> {
    const { scenarios, rounds, log } = this.#run;
    if (scenarios[0]!.work !== 'copy') {
      log('warm-up');
      for (const system of [...this.#systems]) await this.#measure(system, warmup, false);
    }
    for (const scenario of scenarios) {
      log(scenario.name);
      const first = scenario.work === 'copy' ? 0 : 1; // the others begin with a warm-up of their own
      for (let round = first; round < rounds; round++) {
        for (const system of [...this.#systems]) await this.#measure(system, scenario, round > 0);
      }
    }
    return this.#measured();
  }

  /** A peer that fails is left out from then on. */
  async #measure(system: MirrorSystem, scenario: MirrorScenario, kept: boolean): Promise<void> {
    if (scenario.work === 'compare' && system !== this.#millrace) return;
    try {
      const sample = await this.#alone(system, () => this.#sample(system, scenario));
      this.#keep(scenario, system.name, sample, kept);
    } catch (error) {
      if (system === this.#millrace) throw error;
      this.#leaveOut(system.name, error as Error);
      this.#systems.splice(this.#systems.indexOf(system), 1);
    }
  }

  async #sample(system: MirrorSystem, scenario: MirrorScenario): Promise<Sample> {
    const { sizes } = this.#run;
    const bench = this.#bench!;
    if (scenario.work === 'lag') return bench.lag(system, scenario, sizes);
    const records = sizes.records ?? scenario.records;
    const topic = await this.#load(system.bootstrap, records);
    return scenario.work === 'copy'
      ? bench.copy(system, topic, records)
      : bench.compare(this.#millrace!, topic, records);
  }

  /** The topic with so many records at a source, made where it is not there yet. */
  async #load(bootstrap: string, records: number): Promise<string> {
    const topic = `stored-${records}`;
    const key = `${bootstrap} ${topic}`;
    if (this.#loaded.has(key)) return topic;
    await librdkafka('create', { bootstrap, topic, partitions });
    const produced = await librdkafka<Produced>('produce', {
      bootstrap,
      topic,
      payloads: payloadFile(recordBytes),
      size: recordBytes,
      records,
      linger: 50,
      'batch-bytes': storedBatchBytes,
    });
    this.#loaded.set(key, produced.records);
    return topic;
  }

  #alone<T>(system: MirrorSystem, work: () => Promise<T>): Promise<T> {
    const own = new Set(system.pids());
    const others = this.#systems.flatMap(other => other.pids()).filter(pid => !own.has(pid));
    return whileStopped(others, work);
  }

  #leaveOut(system: string, error: Error): void {
    this.#absent[system] = error.message.split('\n')[0]!;
    this.#run.log(`  without ${system}: ${this.#absent[system]}`);
  }

  #keep(scenario: MirrorScenario, system: string, sample: Sample, kept: boolean): void {
    this.#run.log(`  ${kept ? '' : 'warm-up '}${system.padEnd(21)} ${shown(sample)}`);
    if (kept) this.#samples.add(scenario.name, system, sample);
  }

  async #measured(): Promise<Measured> {
    const { scenarios, sizes } = this.#run;
    const settings: Record<string, Record<string, string>> = {};
    for (const system of this.#systems) settings[system.name] = await system.describe();
    Object.assign(settings.millrace!, {
      target: `Apache Kafka ${kafkaVersion}, one broker for all, as it comes`,
      copied: `six partitions, batches of 64 KB; the first quarter is not counted`,
      lag: `${sizes.seconds} s after ${sizes.warmupSeconds} s, linger 5 ms`,
    });
    return {
      results: this.#samples.results(scenarios, this.#systems),
      systems: Object.fromEntries(this.#systems.map(({ name, description }) => [name, description])),
      absent: this.#absent,
      settings,
    };
  }
}
