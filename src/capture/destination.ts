// Where a capture's batches go: this log (log-destination.ts), or a remote Kafka (remote-destination.ts). Both keep, for
// every partition, the position of the last change that is in it; so after any crash each knows what it has, and what
// the slot sends again is passed over.
import type pg from 'pg';
import type { Position } from './position.ts';

export interface StoredPosition extends Position {
  /** How many partitions the topic had then, which tells where a key went. */
  readonly partitionCount: number;
}

/** A topic that can be written to. Another object after what it stands for has become another topic. */
export interface Place {
  readonly name: string;
  /** May grow. */
  readonly partitionCount: number;
  readonly maxRecordBytes: number;
  /** What each partition had when the capture began. */
  readonly stored: readonly (StoredPosition | undefined)[];
}

export interface Destination {
  /** How long a clean stop waits for what is under way; undefined: until it has ended. */
  readonly settleMs: number | undefined;
  /** Reads what is there; before anything else. */
  load(): Promise<void>;
  /** The topic if it can be written to at once. */
  known(name: string): Place | undefined;
  /** The topic if there is one. */
  find(name: string): Promise<Place | undefined>;
  /** The topic, made if there is none. Rejects with TopicError. */
  open(name: string, partitionCount: number, config: Readonly<Record<string, string>>): Promise<Place>;
  /**
   * A batch for `partition`, whose last change stands at `last`. Resolves when batch and position are durable; rejects
   * when they may not be, and then so does every later one.
   */
  append(place: Place, partition: number, batch: Buffer, last: StoredPosition): Promise<void>;
  /** Writes what has to be known when the slot has let go of what is durable, in the transaction that notes it. */
  note(client: pg.PoolClient): Promise<void>;
  /** Appends nothing more; what is under way settles soon. */
  abandon(): void;
}
