// What takes a topic's records into the table.
import type { Processes } from '../processes.ts';
import type { SinkScenario } from './scenarios.ts';
import type { MetricsTable } from './table.ts';

export interface SinkSystem {
  readonly name: string;
  readonly description: string;
  /** Processes that run while it is measured, Postgres's apart; all others' are stopped. */
  pids(): number[];
  /** What no clock covers: the topic, `records` of the stream of `seed`. */
  prepare(scenario: SinkScenario, records: number): Promise<void>;
  /** Begins to write the topic's records from the first on. */
  begin(scenario: SinkScenario, records: number): Promise<void>;
  /** Why it has stopped by itself. */
  failed(): Promise<string | undefined>;
  end(): Promise<void>;
  /** For CPU time and memory: what writes, and the broker where that is another process. */
  readonly sink: Processes;
  readonly broker: Processes;
  describe(): Promise<Record<string, string>>;
}

export interface SinkSystemContext {
  readonly table: MetricsTable;
  readonly directory: string;
}

export const seed = 42;
/** The topic of a scenario: those that differ in the mode alone share one. */
export const topicOf = ({ repeats, schemas }: SinkScenario): string =>
  `metrics-${repeats > 0 ? 'repeats' : 'fresh'}-${schemas ? 'schemas' : 'plain'}`;

/** Rows and offsets are made again from the log after a crash, so nobody waits for the disk: the same for all. */
export const synchronousCommit = 'off';
