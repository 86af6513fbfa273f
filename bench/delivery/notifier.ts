// What is measured: a system that takes the events of a topic to open event streams.
import type { Processes } from '../processes.ts';

export interface Notifier {
  readonly name: string;
  readonly description: string;
  /** Where `/v1/stream?subscriber=…` is. Set by start(). */
  readonly url: string;
  /** Of which the database's snapshot is held. */
  readonly databaseUrl: string;
  /** Its own processes, without those of Postgres. */
  readonly processes: Processes;
  /** Begins with an empty topic, which it takes from now on. */
  start(topic: string): Promise<void>;
  stop(): Promise<void>;
}
