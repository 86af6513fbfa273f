// What rounds have measured, by scenario and system, and what it comes to.
import { type Metric, metrics, type Result, summarised } from './metrics.ts';
import type { Sample } from './peers/system.ts';

/** What a run of one kind of scenarios has to tell. */
export interface Measured {
  readonly results: Result[];
  /** What each is, by its name. */
  readonly systems: Record<string, string>;
  /** Why one that was asked for is not among them. */
  readonly absent: Record<string, string>;
  readonly settings: Record<string, Record<string, string>>;
}

export class Samples {
  readonly #taken = new Map<string, Sample[]>();

  add(scenario: string, system: string, sample: Sample): void {
    const key = `${scenario} ${system}`;
    this.#taken.set(key, [...(this.#taken.get(key) ?? []), sample]);
  }

  /** In the order of `scenarios`, then of `systems`; of those that have any. */
  results(scenarios: readonly { readonly name: string }[], systems: readonly { readonly name: string }[]): Result[] {
    return scenarios.flatMap(({ name: scenario }) =>
      systems.flatMap(({ name: system }) => {
        const samples = this.#taken.get(`${scenario} ${system}`) ?? [];
        return (Object.keys(metrics) as Metric[]).flatMap(metric => {
          const values = samples.flatMap(sample => sample[metric] ?? []);
          return values.length > 0 ? [summarised(scenario, system, metric, values)] : [];
        });
      }),
    );
  }
}

/** For one line of a log. */
export const shown = (sample: Sample): string =>
  Object.entries(sample)
    .map(([metric, value]) => `${metric} ${value!.toPrecision(4)}`)
    .join('  ');
