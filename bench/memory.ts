// npm run bench -- memory [--minutes N] [--json FILE]: produces and consumes at full speed for ten minutes, shape after
// shape, each on a topic of its own that is deleted afterwards, and samples the broker's resident memory every 5 s.
import { setTimeout as delay } from 'node:timers/promises';
import { type Metric, type Result, summarised } from './metrics.ts';
import type { Millrace } from './peers/millrace.ts';
import { anonymousMb, proportionalMb, residentMb } from './processes.ts';
import { findScenarios } from './scenario.ts';

const sampleMs = 5000;
const workSeconds = 20;

export interface MemorySample {
  readonly minute: number;
  readonly broker: number;
  readonly postgres: number;
  readonly postgresOwn: number;
}

/** Tail reads beside producing, and reads of what is stored, in turn. */
export async function measureMemory(millrace: Millrace, minutes: number, log: (line: string) => void) {
  const samples: MemorySample[] = [];
  const begun = Date.now();
  const deadline = begun + minutes * 60_000;
  const ended = new AbortController();
  const sampling = sample(millrace, begun, samples, log, ended.signal);
  const shapes = findScenarios(['consume-tail', 'consume-warm']).map(scenario => ({
    ...scenario,
    seconds: workSeconds,
  }));
  try {
    for (let round = 0; Date.now() < deadline; round++) {
      const scenario = shapes[round % shapes.length]!;
      await millrace.prepare(scenario);
      const { records_per_s } = await millrace.measure(scenario);
      await millrace.clear(scenario);
      log(`  ${scenario.name}: ${Math.round(records_per_s!)} records/s`);
    }
  } finally {
    ended.abort();
    await sampling;
  }
  return { samples, results: summarise(samples) };
}

async function sample(
  millrace: Millrace,
  begun: number,
  samples: MemorySample[],
  log: (line: string) => void,
  ended: AbortSignal,
): Promise<void> {
  while (!ended.aborted) {
    const { broker, postgres } = millrace.payers;
    const taken: MemorySample = {
      minute: (Date.now() - begun) / 60_000,
      broker: residentMb(broker),
      postgres: proportionalMb(postgres),
      postgresOwn: anonymousMb(postgres),
    };
    samples.push(taken);
    log(
      `${taken.minute.toFixed(1).padStart(5)} min  broker ${taken.broker.toFixed(0)} MB  Postgres ${taken.postgres.toFixed(0)} MB`,
    );
    await delay(sampleMs, undefined, { signal: ended }).catch(() => {});
  }
}

function summarise(samples: readonly MemorySample[]): Result[] {
  const result = (metric: Metric, values: readonly number[]): Result =>
    summarised('memory', 'millrace', metric, values);
  const broker = samples.map(sample => sample.broker);
  const postgres = samples.map(sample => sample.postgres);
  const slope = slopeOf(samples.slice(samples.length >> 1).map(sample => [sample.minute, sample.broker]));
  return [
    result('broker_rss_mb', broker),
    result('postgres_rss_mb', postgres),
    result('broker_rss_mb_per_minute', [slope]),
  ];
}

/** Least squares, over the second half of the run: what is still growing once everything has been used. */
function slopeOf(points: readonly (readonly [number, number])[]): number {
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const x = mean(points.map(([value]) => value));
  const y = mean(points.map(([, value]) => value));
  const covariance = points.reduce((sum, [px, py]) => sum + (px - x) * (py - y), 0);
  return covariance / points.reduce((sum, [px]) => sum + (px - x) ** 2, 0);
}
