// Where records are read from: this log, or a remote Kafka. Partitions give whole record batches from an offset on, and
// whoever reads them (reader.ts) does not know which of the two it is.
import type { ReadResult } from '../storage/stored-log.ts';

export interface SourceTopic {
  /** Never another topic's: neither of another source, nor of one that was deleted and made again. */
  readonly id: number;
  readonly uuid: string;
  readonly name: string;
  readonly partitionCount: number;
}

export interface Batches extends ReadResult {
  /** Base offsets of batches whose transaction was aborted: their offsets pass, their records are not read. */
  readonly aborted?: ReadonlySet<bigint>;
}

export interface SourcePartition {
  readonly topic: SourceTopic;
  readonly partition: number;
  readonly logStartOffset: bigint;
  /** What can be read ends before it, as far as is known here. */
  readonly highWatermark: bigint;
  readonly deleted: boolean;
  /** Woken when there may be something to read. */
  readonly waiters: Set<() => void>;
  /** Whether `read` has anything to say at the offset: batches or an error. */
  isReadyAt(offset: bigint): boolean;
  /** Batches from the one that holds `offset` on. `maxBytes` is a wish. */
  read(offset: bigint, maxBytes: number): Batches | Promise<Batches>;
}

export interface Source {
  /** Of all topics whose names `wanted` takes. Rejects where the source cannot tell. */
  partitions(wanted: (topic: string) => boolean): Promise<SourcePartition[]>;
  /** Calls back when the topics that `wanted` takes are others, or have other partitions. Returns what ends that. */
  onChange(wanted: (topic: string) => boolean, changed: () => void): () => void;
  close(): void;
}
