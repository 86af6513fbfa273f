// A system under measurement. All systems of a run are started once and stay; while one is measured the processes of
// the others are stopped with SIGSTOP, so they keep warm and cost nothing.
import type { Metric } from '../metrics.ts';
import type { Scenario, Work } from '../scenario.ts';

export type Sample = Partial<Record<Metric, number>>;

export interface System {
  readonly name: string;
  /** What it is, for the report. */
  readonly description: string;
  /** Whether it does this work, with this client. */
  can(scenario: Scenario): boolean;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Roots of the process trees that must run while it does this work; of all its trees where none is given. */
  processes(work?: Work): number[];
  /** What a scenario needs and no clock covers: topics, stored records. */
  prepare(scenario: Scenario): Promise<void>;
  /** One round. */
  measure(scenario: Scenario): Promise<Sample>;
  /** Removes what prepare made. */
  clear(scenario: Scenario): Promise<void>;
  /** Versions and settings, as they are in effect. */
  describe(): Promise<Record<string, string>>;
}
