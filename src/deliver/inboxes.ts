// The inboxes that this process fills: what PipelineSet does with those of a kind. One that is paused is not filled, and is
// served all the same.
import type { ReferenceSources } from '../runtime/references.ts';
import { type Listed, PipelineSet, type PipelineSetOptions, type Registered } from '../storage/pipeline-set.ts';
import { Appender } from './appender.ts';
import { type InboxDefinition, readDefinition } from './definition.ts';
import type { Inbox, InboxEvent } from './inbox.ts';
import { Ingest, type IngestContext, type IngestStatus, noCounters } from './ingest.ts';

export interface InboxesOptions extends PipelineSetOptions {
  readonly ingest: Pick<IngestContext, 'log' | 'topics'>;
  /** Of the secrets of webhooks. */
  readonly references: ReferenceSources;
  /** An inbox is there to be served. */
  readonly onOpened: (inbox: Inbox, definition: InboxDefinition) => void;
  /** What has been committed, in order, up to number `end`. */
  readonly onAppended: (inbox: string, events: readonly InboxEvent[], end: bigint) => void;
  /** Some of its records became no event. */
  readonly onDead: (inbox: string) => void;
  /** It is about to be dropped: nobody may read it any more. */
  readonly onDeleted: (inbox: string) => Promise<void>;
  /** Throws an OperationalError where inboxes must not be served. */
  readonly assertServable: () => void;
}

export type FilledInbox = Listed<IngestStatus>;

interface OpenInbox extends Registered {
  readonly appender: Appender;
}

export class Inboxes extends PipelineSet<InboxDefinition, Ingest, IngestStatus, OpenInbox> {
  /** Throws an OperationalError for a definition of the file that cannot be understood. */
  constructor(options: InboxesOptions) {
    const { context, ingest, references, onOpened, onAppended, onDead, onDeleted, assertServable } = options;
    const { pool, term } = context;
    super(options, {
      kind: 'inbox',
      table: 'kafka.inboxes',
      read(name, written, where) {
        const definition = readDefinition(name, written, where, references);
        assertServable();
        return definition;
      },
      // They would move each other's offsets.
      shared: (one, other) => (one.group === other.group ? `group ${one.group}` : undefined),
      async register(_lane, _name, definition) {
        if (definition === undefined) return undefined;
        const { appender, paused } = await Appender.open(pool, definition, term);
        onOpened(appender.inbox, definition);
        return { id: appender.inbox.id, paused, appender };
      },
      make(definition, { appender }, before) {
        const filled = (events: readonly InboxEvent[], end: bigint): void => onAppended(definition.name, events, end);
        const dead = (): void => onDead(definition.name);
        const options = { ...context, ...ingest, definition, appender, onAppended: filled, onDead: dead };
        return new Ingest(options, before?.counters);
      },
      idle: name => ({ ...nothing, name }),
      // With all it holds and the offsets of its group.
      async forget(lane, name, definition) {
        await onDeleted(name);
        await lane.transaction(async client => {
          await client.query('SELECT kafka.inbox_drop($1)', [name]);
          await client.query('DELETE FROM kafka.consumer_offsets WHERE group_id = $1', [definition?.group ?? '']);
        });
      },
    });
  }
}

const nothing = { state: 'stopped', reason: undefined, hint: undefined, lag: 0n, ...noCounters() } as const;
