// One sink: its topics, tasks and connections, begun again with backoff whenever they break, until it is stopped or comes
// to what a person must decide. Where it stands is in the database, so beginning again is the same after a lost connection,
// a restart and a kill -9.
//
//   starting ──▶ running ──▶ retrying ──▶ starting …
//       │            └──▶ failed (with the way out)      stopped, from anywhere
//       └──▶ waiting (no topic of these names yet)
import type { Logger } from 'pino';
import { openPool, type Pool } from '../postgres/pool.ts';
import { aborted } from '../runtime/aborted.ts';
import { backoff } from '../runtime/backoff.ts';
import { codeOf, messageOf } from '../runtime/errors.ts';
import { matchTopic } from '../runtime/patterns.ts';
import { KafkaSource } from '../source/kafka-source.ts';
import { openSource } from '../source/open.ts';
import { RemoteGroup } from '../source/remote-group.ts';
import type { SourcePartition, SourceTopic, Source as TopicSource } from '../source/source.ts';
import type { Log } from '../storage/log.ts';
import { PipelineError } from '../storage/pipelines.ts';
import type { TopicSettings } from '../storage/topic-config.ts';
import type { Term, Topic, Topics } from '../storage/topics.ts';
import type { Inlet, Source } from './batch.ts';
import { ChangeReader } from './change.ts';
import { DeadLetters } from './dead-letters.ts';
import type { SinkDefinition } from './definition.ts';
import { OwnProgress, type Progress } from './progress.ts';
import { RemoteProgress } from './remote-progress.ts';
import { RowTemplates } from './row-templates.ts';
import { TableWriter } from './table-writer.ts';
import { Targets } from './targets.ts';
import { type SinkCounters, SinkStopped, Task } from './task.ts';

export interface SinkContext {
  /** The log's own database. */
  readonly databaseUrl: string;
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly settingsOf: (topic: Topic) => TopicSettings;
  readonly term: () => Term;
  readonly logger: Logger;
}

export type SinkState = 'starting' | 'running' | 'waiting' | 'retrying' | 'failed' | 'paused' | 'stopped';

export interface PartitionStatus {
  readonly topic: string;
  readonly partition: number;
  readonly committed: bigint;
  readonly end: bigint;
}

export interface SinkStatus extends Readonly<SinkCounters> {
  readonly name: string;
  readonly state: SinkState;
  /** Why it is retrying or has failed, and what to do. */
  readonly reason: string | undefined;
  readonly hint: string | undefined;
  readonly group: string;
  /** Records that are not in their tables yet. */
  readonly lag: bigint;
  readonly partitions: readonly PartitionStatus[];
}

export interface SinkOptions {
  readonly definition: SinkDefinition;
  readonly sinkId: number;
  readonly onState?: (state: SinkState, reason?: string) => void;
}

/** A run that lasted so long was no failure of the start, ms. */
const settledMs = 60_000;
/** Daily partitions are made and dropped. */
const rollEveryMs = 3_600_000;
/** A reset waits so long for a remote Kafka. */
const resetTimeoutMs = 30_000;

export class Sink {
  readonly definition: SinkDefinition;
  readonly #context: SinkContext;
  readonly #sinkId: number;
  readonly #onState: SinkOptions['onState'];
  readonly #logger: Logger;
  readonly #stopping = new AbortController();
  readonly #stopped = aborted(this.#stopping.signal);
  readonly counters: SinkCounters;
  #state: SinkState = 'starting';
  #reason: string | undefined;
  #hint: string | undefined;
  #running: Promise<void> | undefined;
  /** The last that was opened. */
  #source: TopicSource | undefined;
  #sources: readonly Source[] = [];
  #writers: readonly TableWriter[] = [];

  /** `counters`: what an earlier one of the name has counted. */
  constructor(context: SinkContext, { definition, sinkId, onState }: SinkOptions, counters = noCounters()) {
    this.#context = context;
    this.definition = definition;
    this.#sinkId = sinkId;
    this.#onState = onState;
    this.#logger = context.logger.child({ sink: definition.name });
    this.counters = counters;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Writes what has been read, and ends. Once `hurry` is aborted, waits for nothing more: it is written next time. */
  async stop(hurry?: AbortSignal): Promise<void> {
    this.#stopping.abort();
    // It may be waiting for an answer that never comes; what has been read already is written.
    if (this.#state !== 'running') this.#source?.close();
    const cut = (): void => {
      for (const writer of this.#writers) writer.destroy();
      this.#source?.close();
    };
    if (hurry?.aborted) cut();
    hurry?.addEventListener('abort', cut);
    await this.#running;
    hurry?.removeEventListener('abort', cut);
    this.#become('stopped');
  }

  status(): SinkStatus {
    const partitions = this.#sources.map(({ inlet, partition, committed, log }) => ({
      topic: inlet.topic.name,
      partition,
      committed,
      end: log.highWatermark,
    }));
    const trouble = this.#source instanceof KafkaSource ? this.#source.trouble : undefined;
    const isHeldUp = trouble !== undefined && (this.#state === 'starting' || this.#state === 'running');
    return {
      name: this.definition.name,
      state: isHeldUp ? 'retrying' : this.#state,
      reason: isHeldUp ? trouble.message : this.#reason,
      hint: this.#hint,
      group: this.definition.group,
      lag: partitions.reduce((sum, { committed, end }) => sum + end - committed, 0n),
      partitions,
      ...this.counters,
    };
  }

  /** Moves its offsets; only after `stop`. Throws a PipelineError where a remote Kafka does not answer. */
  async reset(to: 'earliest' | 'latest'): Promise<void> {
    const source = this.#openSource();
    const target = this.#openTarget();
    const timer = setTimeout(() => source.close(), resetTimeoutMs);
    try {
      const found = await source.partitions(this.#wanted);
      const progress = await this.#progress(target, await this.#groupOf(source));
      await progress.reset(
        found.map(({ topic, partition, logStartOffset, highWatermark }) => ({
          topic,
          partition,
          offset: to === 'latest' ? highWatermark : logStartOffset,
        })),
      );
    } catch (error) {
      const trouble = source instanceof KafkaSource ? source.trouble : undefined;
      if (!trouble) throw error;
      throw new PipelineError('state', `the source does not answer: ${trouble.message}`, 'try again when it does');
    } finally {
      clearTimeout(timer);
      source.close();
      if (target !== this.#context.pool) await target.end();
    }
  }

  readonly #wanted = (topic: string): boolean => matchTopic(this.definition.topics, topic) !== undefined;

  #openSource(): TopicSource {
    const { name, source } = this.definition;
    return openSource(this.#context, source, `millrace-sink-${name}`);
  }

  #become(state: SinkState, reason?: string, hint?: string): void {
    this.#state = state;
    this.#reason = reason;
    this.#hint = hint;
    this.#onState?.(state, reason);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const fresh = () => backoff({ firstMs: 100, maxMs: 10_000 });
    let wait = fresh();
    while (!signal.aborted) {
      const began = Date.now();
      try {
        await this.#attempt();
        wait = fresh();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof SinkStopped) {
          this.#logger.error({ reason: error.message, hint: error.hint }, 'a sink has stopped');
          this.#become('failed', error.message, error.hint);
          return;
        }
        if (Date.now() - began > settledMs) wait = fresh();
        this.#logger.warn({ error: messageOf(error), code: codeOf(error) }, 'a sink broke off; trying again');
        this.#become('retrying', messageOf(error));
        await Promise.race([wait(), this.#stopped]);
      }
    }
  }

  /** Runs until it is stopped, or its topics are others; throws when something breaks. */
  async #attempt(): Promise<void> {
    const { pool, databaseUrl } = this.#context;
    const { definition } = this;
    this.#become('starting');
    const ending = new AbortController();
    const source = this.#openSource();
    this.#source = source;
    const end = (): void => ending.abort();
    this.#stopping.signal.addEventListener('abort', end);
    const stopListening = source.onChange(this.#wanted, end);
    const targetUrl = definition.database ?? databaseUrl;
    const targetPool = this.#openTarget();
    let group: RemoteGroup | undefined;
    let rolling: NodeJS.Timeout | undefined;
    try {
      const found = await source.partitions(this.#wanted);
      if (found.length === 0) {
        this.#become('waiting', `there is no topic ${definition.topics.join(', ')}`);
        await aborted(ending.signal);
        return;
      }
      const targets = new Targets(targetPool, definition);
      group = await this.#groupOf(source);
      const progress = await this.#progress(targetPool, group);
      const perTask = await this.#assign(found, targets, progress);
      rolling = await this.#rollDays(perTask.flat(), targets);
      const deadLetters = new DeadLetters({ ...this.#context, definition, sinkId: this.#sinkId });
      await deadLetters.load();
      const opening = perTask.map(() => TableWriter.open({ databaseUrl: targetUrl, progress, onLost: end }));
      const opened = await Promise.allSettled(opening);
      this.#writers = opened.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []));
      await Promise.all(opening);
      if (!ending.signal.aborted) this.#become('running');
      const tasks = perTask.map((sources, i) => {
        const writer = this.#writers[i]!;
        const { counters } = this;
        return new Task({ definition, sources, targets, writer, deadLetters, counters, stopping: ending.signal });
      });
      const runs = tasks.map(task => task.run().finally(end));
      await Promise.allSettled(runs);
      await Promise.all(runs);
    } finally {
      stopListening();
      clearInterval(rolling);
      await group?.end();
      source.close();
      this.#stopping.signal.removeEventListener('abort', end);
      for (const writer of this.#writers) await writer.end().catch(() => {});
      this.#writers = [];
      if (targetPool !== pool) await targetPool.end();
    }
  }

  /** Now, and every hour for as long as the interval that it returns lives. */
  async #rollDays(sources: readonly Source[], targets: Targets): Promise<NodeJS.Timeout | undefined> {
    if (!this.definition.dailyPartitions) return undefined;
    const topicOf = new Map<string, string>();
    for (const { inlet } of sources) {
      // What is made of a first record is partitioned when it is made.
      if (inlet.mapping) topicOf.set(inlet.mapping.table.sql, inlet.topic.name);
    }
    for (const topic of topicOf.values()) await targets.roll(topic);
    return setInterval(() => {
      for (const { inlet } of sources) if (inlet.mapping) topicOf.set(inlet.mapping.table.sql, inlet.topic.name);
      for (const topic of topicOf.values()) {
        targets.roll(topic).catch((error: unknown) => {
          this.#logger.warn(
            { topic, error: messageOf(error) },
            'daily partitions were not made or dropped; later again',
          );
        });
      }
    }, rollEveryMs);
  }

  async #progress(target: Pool, remote: RemoteGroup | undefined): Promise<Progress> {
    const { pool, term } = this.#context;
    const options = { pool, term, group: this.definition.group, sinkId: this.#sinkId };
    if (target === pool && !remote) return new OwnProgress(options);
    return RemoteProgress.open({ ...options, target, logger: this.#logger, remote });
  }

  /** Of a remote Kafka. */
  async #groupOf(source: TopicSource): Promise<RemoteGroup | undefined> {
    if (!(source instanceof KafkaSource)) return undefined;
    const { group } = this.definition;
    return new RemoteGroup({ source, clusterId: await source.clusterId(), group, logger: this.#logger });
  }

  /** The pool of the target database; where it is not the log's own, whoever has opened it ends it. */
  #openTarget(): Pool {
    const { database } = this.definition;
    if (database === undefined) return this.#context.pool;
    return openPool(database, { max: 2, applicationName: 'millrace sink' });
  }

  /** The partitions of each task, where the group stands. */
  async #assign(found: readonly SourcePartition[], targets: Targets, progress: Progress): Promise<Source[][]> {
    const { definition } = this;
    // What is made after the sink's first start is read from its beginning.
    const latest = definition.start === 'latest' && !(await progress.known());
    const offsets = await progress.begin(
      found.map(({ topic, partition, logStartOffset, highWatermark }) => ({
        topic,
        partition,
        offset: latest ? highWatermark : logStartOffset,
      })),
    );
    const perTask: Source[][] = [];
    const count = Math.min(definition.tasks, found.length);
    for (let task = 0; task < count; task++) {
      const inlets = new Map<SourceTopic, Inlet>();
      const sources: Source[] = [];
      for (let i = task; i < found.length; i += count) {
        const log = found[i]!;
        const { topic, partition } = log;
        let inlet = inlets.get(topic);
        if (!inlet) {
          const mapping = await targets.mapping(topic.name);
          inlet = { topic, reader: new ChangeReader(definition), templates: new RowTemplates(), mapping };
          inlets.set(topic, inlet);
        }
        const committed = offsets[i]!;
        sources.push({ inlet, log, partition, position: committed, committed });
      }
      perTask.push(sources);
    }
    this.#sources = perTask.flat();
    return perTask;
  }
}

export const noCounters = (): SinkCounters => ({
  records: 0,
  rows: 0,
  bytes: 0,
  batches: 0,
  deadLetters: 0,
  bisected: 0,
  writeMs: 0,
});
