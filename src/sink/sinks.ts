// All sinks of this Millrace: what PipelineSet does with those of a kind, offsets that can be moved, and offsets that are kept.
import type { Part } from '../runtime/lifecycle.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import {
  type Described,
  type Listed,
  PipelineSet,
  type PipelineSetOptions,
  registerRow,
} from '../storage/pipeline-set.ts';
import { readDefinition, type SinkDefinition } from './definition.ts';
import { noCounters, Sink, type SinkContext, type SinkStatus } from './sink.ts';

export interface SinksOptions extends PipelineSetOptions {
  readonly context: SinkContext;
  readonly references: ReferenceSources;
}

export type ListedSink = Listed<SinkStatus>;

/** Where a sink goes on after a reset. */
export type ResetTo = 'earliest' | 'latest';

/** Committed offsets of groups without members expire; a sink that is idle or paused keeps its own. */
const keepEveryMs = 3_600_000;

export class Sinks extends PipelineSet<SinkDefinition, Sink, SinkStatus> implements Part {
  readonly name = 'sinks';
  readonly #options: SinksOptions;
  #keeping: NodeJS.Timeout | undefined;

  /** Throws an OperationalError for a definition of the file that cannot be understood. */
  constructor(options: SinksOptions) {
    const { context, references } = options;
    super(options, {
      kind: 'sink',
      table: 'kafka.sinks',
      read: (name, written, where) => readDefinition(name, written, { file: where, references }),
      // They would move each other's offsets.
      shared: (one, other) => (one.group === other.group ? `group ${one.group}` : undefined),
      register: (lane, name) => registerRow(lane, 'kafka.sinks', 'sink_id', name),
      make: (definition, { id }, before) => new Sink(context, { definition, sinkId: id }, before?.counters),
      idle: (name, definition) => ({ ...nothing, ...noCounters(), name, group: definition?.group ?? '' }),
      // With the offsets of its group in the log; tables stay.
      forget: (lane, name, definition) =>
        lane.transaction(async client => {
          await client.query('DELETE FROM kafka.sinks WHERE name = $1', [name]);
          await client.query('DELETE FROM kafka.consumer_offsets WHERE group_id = $1', [definition?.group ?? '']);
        }),
    });
    this.#options = options;
  }

  override async start(): Promise<void> {
    await super.start();
    await this.#keep();
    this.#keeping = setInterval(() => void this.#keep(), keepEveryMs);
    this.#keeping.unref();
  }

  /** Moves the offsets of all its partitions. */
  async reset(name: string, to: ResetTo): Promise<Described<SinkStatus>> {
    return this.whileStopped(name, sink => sink.reset(to));
  }

  override async stop(hurry: AbortSignal): Promise<void> {
    clearInterval(this.#keeping);
    await super.stop(hurry);
  }

  async #keep(): Promise<void> {
    const groups = this.definitions().map(({ group }) => group);
    await this.lane
      .transaction(client =>
        client.query('UPDATE kafka.consumer_offsets SET committed_at = now() WHERE group_id = ANY ($1)', [groups]),
      )
      .catch((error: Error) => this.#options.context.logger.warn({ err: error }, 'sinks’ offsets were not kept'));
  }
}

const nothing = { state: 'stopped', reason: undefined, hint: undefined, lag: 0n, partitions: [] } as const;
