// Runs scenarios: rounds interleaved over the systems, so that whatever else the machine does falls on all of them
// alike; the first round, in which everything warms up, is thrown away.
import { spawnSync } from 'node:child_process';
import type { Result } from './metrics.ts';
import type { Sample, System } from './peers/system.ts';
import { treeOf, whileStopped } from './processes.ts';
import { Samples } from './samples.ts';
import type { Scenario, Work } from './scenario.ts';

export interface RunOptions {
  readonly scenarios: readonly Scenario[];
  readonly systems: readonly System[];
  /** The one that is thrown away included. */
  readonly rounds: number;
  readonly log: (line: string) => void;
}

export async function runScenarios({ scenarios, systems, rounds, log }: RunOptions): Promise<Result[]> {
  const samples = new Samples();
  for (const scenario of scenarios) {
    const able = systems.filter(system => system.can(scenario));
    log(`${scenario.name}`);
    for (const system of able) await alone(system, systems, scenario.work, () => system.prepare(scenario));
    for (let round = 0; round < rounds; round++) {
      for (const system of able) {
        const sample = await alone(system, systems, scenario.work, () => system.measure(scenario));
        const kept = round > 0;
        if (kept) samples.add(scenario.name, system.name, sample);
        log(`  ${kept ? `round ${round}` : 'warm-up'} ${system.name.padEnd(12)} ${summary(sample)}`);
      }
    }
    for (const system of able) await alone(system, systems, scenario.work, () => system.clear(scenario));
  }
  return samples.results(scenarios, systems);
}

/** With the other systems' processes stopped, and nothing of theirs left to be written to disk. */
export async function alone<T>(
  system: System,
  systems: readonly System[],
  work: Work,
  act: () => Promise<T>,
): Promise<T> {
  spawnSync('sync');
  // An embedded Postgres is a child of the broker that started it, and may be what is measured without the broker.
  const mine = new Set(treeOf(system.processes(work)));
  const others = treeOf(systems.flatMap(other => other.processes())).filter(pid => !mine.has(pid));
  return whileStopped(others, act);
}

function summary(sample: Sample): string {
  const shown: [string, number | undefined, number][] = [
    ['records/s', sample.records_per_s, 0],
    ['MB/s', sample.mb_per_s, 1],
    ['ack p50', sample.ack_p50_ms, 2],
    ['ack p99', sample.ack_p99_ms, 2],
    ['p50', sample.p50_ms, 2],
    ['p99', sample.p99_ms, 2],
    ['broker cpu', sample.broker_cpu_s_per_million, 2],
    ['pg cpu', sample.postgres_cpu_s_per_million, 2],
    ['client cpu', sample.client_cpu_s_per_million, 2],
    ['WAL', sample.wal_bytes_per_byte, 2],
    ['broker MB', sample.broker_rss_mb, 0],
    ['total MB', sample.total_rss_mb, 0],
    ['disk bytes', sample.disk_bytes_per_record, 0],
    ['start ms', sample.start_ms, 0],
  ];
  return shown
    .filter(([, value]) => value !== undefined)
    .map(([name, value, digits]) => `${name} ${value!.toFixed(digits)}`)
    .join('  ');
}
