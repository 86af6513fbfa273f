// What carries changes from the source's tables into topics of Millrace's log, or nowhere.
import type { Processes } from '../processes.ts';
import type { CapturedTable, CaptureSource } from './source.ts';

/** What a pipeline is set up for, where it must choose. */
export type Tuning = 'throughput' | 'latency';

export interface Pipeline {
  readonly name: string;
  readonly description: string;
  /** Where it reads a table from; made by the caller. */
  slotOf(table: CapturedTable): string;
  /** Where it writes; made by the caller, one partition. */
  topicOf(table: CapturedTable): string;
  /** Resolves when it has begun. */
  start(table: CapturedTable, tuning: Tuning): Promise<void>;
  stop(): Promise<void>;
  /** Why it has stopped by itself. */
  failed(): string | undefined;
  /** The process that captures; of Millrace, the broker. */
  readonly process: Processes;
  describe(): Promise<Record<string, string>>;
}

export interface PipelineContext {
  readonly source: CaptureSource;
  readonly bootstrap: string;
  readonly directory: string;
}
