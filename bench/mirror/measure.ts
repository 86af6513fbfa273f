// One measurement each: a topic copied, the lag of a copy while records come, both sides compared.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { latest, listOffsets } from '../../src/client/admin.ts';
import { clusterAt } from '../clients/cluster.ts';
import { type Latencies, librdkafka } from '../clients/librdkafka.ts';
import { payloadFile } from '../clients/payloads.ts';
import type { Sample } from '../peers/system.ts';
import { cpuSeconds, peakMb, resetPeak } from '../processes.ts';
import type { MillraceMirror } from './millrace-mirror.ts';
import { type MirrorScenario, type MirrorSizes, partitions, recordBytes } from './scenarios.ts';
import type { MirrorSystem } from './system.ts';

const startScript = fileURLToPath(new URL('../../scripts/start.mjs', import.meta.url));
const million = 1e6;
/** The part of a topic that is copied before the clock starts, by when connectors have been made. */
const warmupShare = 1 / 4;
const pollMs = 10;
const stalledMs = 60_000;
const lingerMs = 5;

export class MirrorBench {
  readonly #target: string;
  #topics = 0;

  constructor(target: string) {
    this.#target = target;
  }

  async copy(system: MirrorSystem, topic: string, records: number): Promise<Sample> {
    resetPeak(system.copier);
    return this.#copied(system, topic, 'copy', async copied => {
      const first = await this.#reached(system, copied, records * warmupShare);
      const spent = spending(system);
      const begun = performance.now();
      const end = await this.#reached(system, copied, records);
      const seconds = (performance.now() - begun) / 1000;
      if (end !== records) throw new Error(`${system.name} has made ${end} records of ${records}`);
      return { records_per_s: (records - first) / seconds, ...spent(records - first) };
    });
  }

  /** From a record's acknowledgement by the source until a consumer of the copy has it. */
  async lag(system: MirrorSystem, { name, rate }: MirrorScenario, sizes: MirrorSizes): Promise<Sample> {
    const topic = `${name}-${system.name}-${++this.#topics}`;
    await librdkafka('create', { bootstrap: system.bootstrap, topic, partitions });
    resetPeak(system.copier);
    return this.#copied(system, topic, 'lag', async copied => {
      await this.#reached(system, copied, 0);
      const spent = spending(system);
      const { lag, records, received, failed, unacknowledged } = await librdkafka<Latencies>('latency', {
        bootstrap: system.bootstrap,
        topic,
        'reader-bootstrap': this.#target,
        'reader-topic': copied,
        payloads: payloadFile(recordBytes),
        size: recordBytes,
        partitions,
        rate,
        linger: lingerMs,
        seconds: sizes.seconds,
        warmup: sizes.warmupSeconds,
      });
      if (lag === undefined || received < records - failed - unacknowledged) {
        throw new Error(`${system.name}: ${received} of ${records} records came within half a minute`);
      }
      return { p50_ms: lag.p50, p95_ms: lag.p95, p99_ms: lag.p99, ...spent(records) };
    });
  }

  /** What `millrace compare` says of its own speed. */
  async compare(mirror: MillraceMirror, topic: string, records: number): Promise<Sample> {
    return this.#copied(mirror, topic, 'compare', async copied => {
      await this.#reached(mirror, copied, records);
      const child = spawn(process.execPath, [startScript, ...mirror.compareArguments], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let said = '';
      child.stdout.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
      const [status] = await once(child, 'close');
      const found = /^(\d+) records are the same, 0 differ, 0 in.* (\d+) records\/s$/m.exec(said);
      if (status !== 0 || Number(found?.[1]) !== records) throw new Error(`compare: ${said}`);
      return { records_per_s: Number(found![2]) };
    });
  }

  /** The copy and its topic are gone afterwards. */
  async #copied(
    system: MirrorSystem,
    topic: string,
    work: MirrorScenario['work'],
    measure: (copied: string) => Promise<Sample>,
  ): Promise<Sample> {
    const copied = await system.begin(topic, work);
    try {
      return await measure(copied);
    } finally {
      await system.end();
      await librdkafka('delete', { bootstrap: this.#target, topic: copied });
    }
  }

  /** Once the target has the topic with so many records; returns how many there are. */
  async #reached(system: MirrorSystem, topic: string, records: number): Promise<number> {
    const cluster = clusterAt(this.#target);
    const all = Array.from({ length: partitions }, (_, partition) => partition);
    try {
      await cluster.refresh();
      for (let [had, since] = [0, Date.now()]; ; await delay(pollMs)) {
        const exists = (await cluster.topic(topic)) !== undefined;
        const ends = exists ? await listOffsets(cluster, topic, all, latest) : new Map<number, bigint>();
        const has = [...ends.values()].reduce((sum, end) => sum + Number(end), 0);
        if (exists && has >= records) return has;
        if (has > had) [had, since] = [has, Date.now()];
        if (Date.now() - since < stalledMs) continue;
        throw new Error(
          `${system.name} has copied ${has} of ${records}: ${(await system.failed()) ?? 'no reason told'}`,
        );
      }
    } finally {
      cluster.close();
    }
  }
}

/** CPU time from now on, and the most that what copies has been resident with. */
function spending({ copier, broker, postgres }: MirrorSystem): (records: number) => Sample {
  const read = () => [cpuSeconds(copier) + cpuSeconds(broker), cpuSeconds(postgres)] as const;
  const before = read();
  return records => {
    const [copying, stored] = read().map((cpu, i) => ((cpu - before[i]!) / records) * million) as [number, number];
    return {
      broker_cpu_s_per_million: copying,
      ...(postgres.roots.length > 0 ? { postgres_cpu_s_per_million: stored } : {}),
      peak_rss_mb: peakMb(copier),
    };
  };
}
