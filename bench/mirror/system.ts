// What copies topics from its source to the Kafka that is everybody's target.
import type { Processes } from '../processes.ts';
import type { MirrorWork } from './scenarios.ts';

export interface MirrorSystem {
  readonly name: string;
  readonly description: string;
  /** Where the source takes records. */
  readonly bootstrap: string;
  /** Roots of what runs while it is measured, but for the target; all others are stopped. */
  pids(): number[];
  /** What copies. */
  readonly copier: Processes;
  /** The source's broker, where that is another process than what copies. */
  readonly broker: Processes;
  readonly postgres: Processes;
  /** Begins to copy a topic from its first record on; returns the topic's name in the target, which is of this copy alone. */
  begin(topic: string, work: MirrorWork): Promise<string>;
  /** Why it has stopped by itself. */
  failed(): Promise<string | undefined>;
  end(): Promise<void>;
  describe(): Promise<Record<string, string>>;
}
