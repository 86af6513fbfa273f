// This log as a source: its partitions as the leader has them in memory, and the log's own reader.
import type { Log } from '../storage/log.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import type { ReadResult } from '../storage/stored-log.ts';
import type { Topic, Topics } from '../storage/topics.ts';
import type { Source, SourcePartition } from './source.ts';

class LogPartition implements SourcePartition {
  readonly topic: Topic;
  readonly #log: Log;
  readonly #partition: PartitionLog;

  constructor(log: Log, topic: Topic, partition: PartitionLog) {
    this.#log = log;
    this.topic = topic;
    this.#partition = partition;
  }

  get partition(): number {
    return this.#partition.partition;
  }

  get logStartOffset(): bigint {
    return this.#partition.logStartOffset;
  }

  get highWatermark(): bigint {
    return this.#partition.highWatermark;
  }

  get deleted(): boolean {
    return this.#partition.deleted;
  }

  get waiters(): Set<() => void> {
    return this.#partition.waiters;
  }

  isReadyAt(offset: bigint): boolean {
    return offset !== this.#partition.highWatermark || this.#partition.deleted;
  }

  read(offset: bigint, maxBytes: number): ReadResult | Promise<ReadResult> {
    return this.#log.read(this.#partition, offset, maxBytes, true);
  }
}

export class LogSource implements Source {
  readonly #log: Log;
  readonly #topics: Topics;

  constructor(log: Log, topics: Topics) {
    this.#log = log;
    this.#topics = topics;
  }

  async partitions(wanted: (topic: string) => boolean): Promise<SourcePartition[]> {
    return [...this.#topics.all()]
      .filter(({ name }) => wanted(name))
      .flatMap(topic =>
        Array.from(
          { length: topic.partitionCount },
          (_, id) => new LogPartition(this.#log, topic, this.#log.partition(topic, id)!),
        ),
      );
  }

  onChange(wanted: (topic: string) => boolean, changed: () => void): () => void {
    return this.#topics.onChange(({ topic }) => {
      if (wanted(topic.name)) changed();
    });
  }

  close(): void {}
}
