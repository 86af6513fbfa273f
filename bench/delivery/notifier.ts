// What is measured: a system that takes the events of a topic to open event streams, or to a receiver of webhooks.
import type { Processes } from '../processes.ts';

export interface Notifier {
  readonly name: string;
  readonly description: string;
  /** Where `/v1/stream?subscriber=…` is, where it has streams. Set by start(). */
  readonly url: string;
  /** Of which the database's snapshot is held. */
  readonly databaseUrl: string;
  /** Its own processes, without those of Postgres. */
  readonly processes: Processes;
  /** Begins with an empty topic, which it takes from now on: to `receiver`, a URL, or to streams where there is none. */
  start(topic: string, receiver: string | undefined): Promise<void>;
  /** Takes no more of the topic until it is resumed. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  stop(): Promise<void>;
}

/** Requests to the receiver that each system has under way at most. */
export const requestsAtOnce = 64;
