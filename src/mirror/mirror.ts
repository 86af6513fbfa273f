// One mirror: its connection to the target, a copy of each partition, and the groups; begun again with backoff whenever
// something breaks, until it is stopped or comes to what a person must decide. Where it stands is in the target's own end
// and in the database, so beginning again is the same after a lost connection, a restart and a kill -9.
//
//   starting ──▶ running ──▶ retrying ──▶ starting …
//                  └──▶ failed (with the way out)      stopped, from anywhere
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { latest, listOffsets, newProducerId } from '../client/admin.ts';
import { Cluster } from '../client/cluster.ts';
import { isSequenceRefusal, KafkaError } from '../client/errors.ts';
import { Producer } from '../client/producer.ts';
import type { Pool } from '../postgres/pool.ts';
import { aborted } from '../runtime/aborted.ts';
import { backoff } from '../runtime/backoff.ts';
import { codeOf, messageOf } from '../runtime/errors.ts';
import { Throttle } from '../runtime/throttle.ts';
import type { Log } from '../storage/log.ts';
import { RemoteProducers } from '../storage/remote-producers.ts';
import type { ServerDefaults } from '../storage/topic-config.ts';
import type { Term, Topic, Topics } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { Budget } from './budget.ts';
import { type CopyContext, type CopyStatus, PartitionCopy } from './copy.ts';
import { DeadLetters } from './dead-letters.ts';
import { type MirrorDefinition, MirrorStopped, targetNameOf } from './definition.ts';
import { GroupSync } from './group-sync.ts';
import { CopyPositions, type CopyToNote } from './positions.ts';
import { TopicMissing, targetTopic } from './target-topic.ts';

export interface MirrorContext {
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly defaults: ServerDefaults;
  readonly term: () => Term;
  readonly logger: Logger;
}

export type MirrorState = 'starting' | 'running' | 'retrying' | 'failed' | 'paused' | 'stopped';

export interface MirrorStatus {
  readonly name: string;
  readonly state: MirrorState;
  /** Why it is retrying or has failed, and what to do. */
  readonly reason: string | undefined;
  readonly hint: string | undefined;
  readonly target: {
    readonly bootstrap: string;
    readonly clusterId: string | undefined;
    /** Why nothing gets through at the moment. */
    readonly trouble: string | undefined;
  };
  /** Records that are not in the target yet. */
  readonly lag: bigint;
  readonly lagMs: number;
  /** On their way. */
  readonly heldBytes: number;
  /** Topics that cannot be copied as things are, and why. They are tried again. */
  readonly problems: readonly { readonly topic: string; readonly reason: string }[];
  /** Why committed offsets could not be written the last time. */
  readonly groupsTrouble: string | undefined;
  readonly partitions: readonly CopyStatus[];
}

export interface MirrorOptions {
  readonly definition: MirrorDefinition;
  readonly mirrorId: number;
  readonly onState?: (state: MirrorState, reason?: string) => void;
}

const noteEveryMs = 500;
const problemsAgainMs = 5000;
/** Answers still awaited when it is to stop, ms. What is not known then is read back the next time. */
const settleMs = 3000;
const readsAtOnce = 4;
/** A run that lasted so long was no failure of the start, ms. */
const settledMs = 60_000;

export class Mirror {
  readonly definition: MirrorDefinition;
  readonly #context: MirrorContext;
  readonly #mirrorId: number;
  readonly #onState: MirrorOptions['onState'];
  readonly #logger: Logger;
  readonly #stopping = new AbortController();
  readonly #stopped = aborted(this.#stopping.signal);
  readonly #hurry = new AbortController();
  #state: MirrorState = 'starting';
  #reason: string | undefined;
  #hint: string | undefined;
  #running: Promise<void> | undefined;
  #session: Session | undefined;

  constructor(context: MirrorContext, { definition, mirrorId, onState }: MirrorOptions) {
    this.#context = context;
    this.definition = definition;
    this.#mirrorId = mirrorId;
    this.#onState = onState;
    this.#logger = context.logger.child({ mirror: definition.name });
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Waits a moment for what is on its way; once `hurry` is aborted, for nothing. */
  async stop(hurry?: AbortSignal): Promise<void> {
    this.#stopping.abort();
    const cut = (): void => this.#hurry.abort();
    if (hurry?.aborted) cut();
    hurry?.addEventListener('abort', cut);
    await this.#running;
    hurry?.removeEventListener('abort', cut);
    if (this.#state !== 'failed') this.#become('stopped');
  }

  status(): MirrorStatus {
    const partitions = this.#session?.status() ?? [];
    const { bootstrap } = this.definition.target;
    return {
      name: this.definition.name,
      state: this.#state,
      reason: this.#reason,
      hint: this.#hint,
      target: {
        bootstrap: bootstrap.map(({ host, port }) => `${host}:${port}`).join(','),
        clusterId: this.#session?.clusterId,
        trouble: this.#session?.trouble?.message,
      },
      lag: partitions.reduce((sum, { lag }) => sum + lag, 0n),
      lagMs: partitions.reduce((most, { lagMs }) => Math.max(most, lagMs), 0),
      heldBytes: this.#session?.heldBytes ?? 0,
      problems: this.#session?.problems ?? [],
      groupsTrouble: this.#session?.groupsTrouble,
      partitions,
    };
  }

  /** Notes how far it is now, instead of within half a second. */
  async note(): Promise<void> {
    await this.#session?.note();
  }

  /** Writes committed offsets to the target now. Rejects where it does not run, or the target cannot be asked. */
  async syncGroups(): Promise<void> {
    if (this.#session === undefined) throw new Error('the mirror does not run');
    await this.#session.syncGroups();
  }

  #become(state: MirrorState, reason?: string, hint?: string): void {
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
      this.#become('starting');
      const session = new Session(this.#context, {
        definition: this.definition,
        mirrorId: this.#mirrorId,
        logger: this.#logger,
        stopping: signal,
        hurry: this.#hurry.signal,
        onRunning: () => this.#become('running'),
      });
      this.#session = session;
      try {
        await session.run();
        wait = fresh();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof MirrorStopped) {
          this.#logger.error({ reason: error.message, hint: error.hint }, 'a mirror has stopped');
          this.#become('failed', error.message, error.hint);
          return;
        }
        if (Date.now() - began > settledMs) wait = fresh();
        this.#logger.warn({ error: messageOf(error), code: codeOf(error) }, 'a mirror broke off; trying again');
        this.#become('retrying', messageOf(error));
        await Promise.race([wait(), this.#stopped]);
      }
    }
  }
}

interface SessionOptions {
  readonly definition: MirrorDefinition;
  readonly mirrorId: number;
  readonly logger: Logger;
  readonly stopping: AbortSignal;
  readonly hurry: AbortSignal;
  readonly onRunning: () => void;
}

/** From connecting to the target until something breaks or it is to stop. */
class Session {
  readonly #context: MirrorContext;
  readonly #options: SessionOptions;
  readonly #ending = new AbortController();
  readonly #cluster: Cluster;
  readonly #lane: WriteLane;
  readonly #budget: Budget;
  /** By topic id and partition. */
  readonly #copies = new Map<string, PartitionCopy>();
  readonly #adopting = new Map<number, Promise<void>>();
  readonly #problems = new Map<string, string>();
  readonly #runs = new Set<Promise<void>>();
  #failure: unknown;
  #trouble: Error | undefined;
  #positions: CopyPositions | undefined;
  #producers: RemoteProducers | undefined;
  #producer: Producer | undefined;
  #producerId = -1n;
  #refusals = 0;
  #fromLatest = false;
  #copyContext: CopyContext | undefined;
  #groups: GroupSync | undefined;
  #noting: Promise<void> = Promise.resolve();
  /** All topics that there were have been begun. */
  #opened = false;
  groupsTrouble: string | undefined;

  constructor(context: MirrorContext, options: SessionOptions) {
    this.#context = context;
    this.#options = options;
    setMaxListeners(0, this.#ending.signal); // one of each partition
    const { bootstrap, tls, sasl } = options.definition.target;
    this.#cluster = new Cluster({
      bootstrap,
      tls,
      sasl,
      clientId: `millrace-mirror-${options.definition.name}`,
      onTrouble: error => this.#troubled(error),
    });
    this.#lane = new WriteLane(context.pool, context.term);
    this.#budget = new Budget(options.definition.bufferBytes);
  }

  get clusterId(): string | undefined {
    return this.#cluster.clusterId;
  }

  get trouble(): Error | undefined {
    return this.#trouble;
  }

  get heldBytes(): number {
    return this.#budget.held;
  }

  get problems(): { topic: string; reason: string }[] {
    return Array.from(this.#problems, ([topic, reason]) => ({ topic, reason }));
  }

  status(): CopyStatus[] {
    return Array.from(this.#copies.values(), copy => copy.status());
  }

  async syncGroups(): Promise<void> {
    await this.note();
    await this.#groups?.run();
  }

  async run(): Promise<void> {
    const { stopping, onRunning, definition } = this.#options;
    const { topics } = this.#context;
    const end = (): void => this.#ending.abort();
    stopping.addEventListener('abort', end);
    if (stopping.aborted) end();
    // Whoever waits for the target waits no longer.
    const cut = (): void => {
      if (!this.#opened) this.#cluster.close();
    };
    stopping.addEventListener('abort', cut);
    const stopListening = topics.onChange(({ kind, topic }) => {
      if (kind !== 'deleted') void this.#adopt(topic);
    });
    const timers: NodeJS.Timeout[] = [];
    try {
      await this.#open();
      await Promise.all([...topics.all()].map(topic => this.#adopt(topic)));
      this.#fromLatest = false;
      this.#opened = true;
      if (this.#failure === undefined && !this.#ending.signal.aborted) onRunning();
      timers.push(
        setInterval(() => this.#background(this.note()), noteEveryMs),
        setInterval(() => this.#again(), problemsAgainMs),
        setInterval(() => void this.#syncQuietly(), definition.groupsEveryMs),
      );
      await aborted(this.#ending.signal);
      if (this.#failure !== undefined) throw this.#failure;
      await this.#settle();
    } finally {
      for (const timer of timers) clearInterval(timer);
      stopListening();
      end();
      stopping.removeEventListener('abort', end);
      stopping.removeEventListener('abort', cut);
      this.#producer?.abandon();
      this.#cluster.close();
      await Promise.allSettled([...this.#adopting.values(), ...this.#runs]);
      await this.note().catch(() => {}); // it is read back from the target
    }
  }

  #troubled(error: Error | undefined): void {
    const { logger } = this.#options;
    if (error && !this.#trouble) logger.warn({ reason: error.message }, 'the target does not take records');
    if (!error && this.#trouble) logger.info('the target takes records again');
    this.#trouble = error;
  }

  /** The first failure ends the session. */
  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#ending.abort();
  }

  #background(work: Promise<void>): void {
    work.catch((error: unknown) => this.#fail(error));
  }

  async #open(): Promise<void> {
    const { definition, mirrorId, logger } = this.#options;
    const { pool, log, topics } = this.#context;
    const cluster = this.#cluster;
    await cluster.retrying(() => cluster.refresh());
    const clusterId = cluster.clusterId!;
    const of = { table: 'kafka.mirror_producers', column: 'mirror_id', id: mirrorId } as const;
    this.#producers = new RemoteProducers(this.#lane, of, clusterId);
    const known = await this.#producers.load(async () => {
      const producerId = await newProducerId(cluster);
      logger.info({ clusterId, producerId: String(producerId) }, 'took a producer id in the target');
      return producerId;
    });
    const newest = known.at(-1)!;
    this.#producerId = newest.producerId;
    this.#refusals = newest.refusals;
    this.#positions = new CopyPositions(this.#lane, mirrorId, clusterId);
    this.#fromLatest = definition.start === 'latest' && !(await this.#positions.known());
    const producer = new Producer({
      cluster,
      producerId: newest.producerId,
      epoch: 0,
      onTrouble: error => this.#troubled(error),
      onRetry: (topic, partition, batches) => {
        for (const copy of this.#copies.values()) {
          const { place } = copy;
          if (place.targetTopic === topic && place.partition === partition) copy.retried += batches;
        }
      },
    });
    this.#producer = producer;
    this.#groups = new GroupSync({ lane: this.#lane, cluster, mirrorId, clusterId, groups: definition.groups });
    this.#copyContext = {
      log,
      cluster,
      producer,
      budget: this.#budget,
      throttle: new Throttle({
        rowsPerSecond: definition.throttle.recordsPerSecond,
        bytesPerSecond: definition.throttle.bytesPerSecond,
      }),
      deadLetters: new DeadLetters({ pool, log, topics, mirror: definition.name, topic: definition.deadLetterTopic }),
      strict: definition.strict,
      reading: slots(readsAtOnce),
      note: copies => this.#positions!.note(copies),
      onSequence: refused => this.#onSequence(refused),
      stopping: this.#ending.signal,
      logger,
    };
  }

  async #onSequence(refused: boolean): Promise<void> {
    if (!refused && this.#refusals === 0) return;
    this.#refusals = refused ? this.#refusals + 1 : 0;
    await this.#producers!.refused(this.#producerId, refused);
  }

  /** Begins to copy what is not copied yet of a topic, if it is to be; after an earlier try of the same. */
  #adopt(topic: Topic): Promise<void> {
    const name = targetNameOf(this.#options.definition, topic.name);
    if (name === undefined || this.#copyContext === undefined) return Promise.resolve();
    const before = this.#adopting.get(topic.id) ?? Promise.resolve();
    const turn = before
      .then(() => this.#adoptNow(topic, name))
      .then(() => {
        this.#problems.delete(topic.name);
      })
      .catch((error: unknown) => {
        if (this.#ending.signal.aborted) return;
        const isProblem = error instanceof TopicMissing || (error instanceof KafkaError && !error.retriable);
        if (!isProblem || this.#options.definition.strict) this.#fail(isProblem ? strictly(error as Error) : error);
        else this.#problem(topic.name, (error as Error).message);
      });
    this.#adopting.set(topic.id, turn);
    return turn;
  }

  #problem(topic: string, reason: string): void {
    if (this.#problems.get(topic) !== reason) this.#options.logger.warn({ topic, reason }, 'a topic is not mirrored');
    this.#problems.set(topic, reason);
  }

  #again(): void {
    for (const topic of this.#context.topics.all()) if (this.#problems.has(topic.name)) void this.#adopt(topic);
  }

  async #adoptNow(topic: Topic, name: string): Promise<void> {
    const { definition } = this.#options;
    const { log, defaults } = this.#context;
    const missing = Array.from({ length: topic.partitionCount }, (_, partition) => partition).filter(
      partition => !this.#copies.has(`${topic.id} ${partition}`),
    );
    if (missing.length === 0 || this.#ending.signal.aborted) return;
    const other = [...this.#copies.values()].find(
      ({ place }) => place.targetTopic === name && place.topic !== topic.name,
    );
    if (other)
      throw new TopicMissing(`topics ${other.place.topic} and ${topic.name} would both be ${name} in the target`);
    await targetTopic(this.#cluster, definition.target, { name, topic, defaults });
    const ends = await listOffsets(this.#cluster, name, missing, latest);
    const noted = await this.#positions!.open(
      { topicId: topic.id, topic: topic.name, targetTopic: name },
      missing.map(partition => {
        const { logStartOffset, highWatermark } = log.partition(topic, partition)!;
        return {
          partition,
          nextOffset: this.#fromLatest ? highWatermark : logStartOffset,
          targetNextOffset: ends.get(partition)!,
          producerId: this.#producerId,
          nextSequence: 0,
        };
      }),
    );
    for (const partition of missing) {
      const source = log.partition(topic, partition)!;
      const place = { topic: topic.name, targetTopic: name, partition, source };
      const copy = new PartitionCopy(this.#copyContext!, place, noted.get(partition)!);
      await copy.recover(ends.get(partition)!);
      copy.adopt(this.#producerId);
      const changes = copy.toNote();
      if (changes) await this.#positions!.note([changes]);
      if (this.#ending.signal.aborted) return;
      this.#begin(`${topic.id} ${partition}`, copy);
    }
  }

  #begin(key: string, copy: PartitionCopy): void {
    this.#copies.set(key, copy);
    const run = copy
      .run()
      .then(() => {
        if (!copy.place.source.deleted) return;
        this.#copies.delete(key);
        this.#options.logger.info(
          { topic: copy.place.topic },
          'a mirrored topic has been deleted; it stays in the target',
        );
      })
      .catch(async (error: unknown) => {
        if (isSequenceRefusal(error)) await this.#onSequence(true).catch(() => {}); // it is counted the next time
        this.#fail(error);
      })
      .finally(() => this.#runs.delete(run));
    this.#runs.add(run);
  }

  /** One after another: what is noted later is later. */
  note(): Promise<void> {
    const turn = this.#noting.catch(() => {}).then(() => this.#noteNow());
    this.#noting = turn;
    turn.catch(() => {});
    return turn;
  }

  async #noteNow(): Promise<void> {
    const changed: { copy: PartitionCopy; changes: CopyToNote }[] = [];
    for (const copy of this.#copies.values()) {
      const changes = copy.toNote();
      if (changes) changed.push({ copy, changes });
    }
    try {
      await this.#positions?.note(changed.map(({ changes }) => changes));
    } catch (error) {
      for (const { copy, changes } of changed) copy.unnoted(changes);
      throw error;
    }
  }

  async #syncQuietly(): Promise<void> {
    try {
      await this.syncGroups();
      this.groupsTrouble = undefined;
    } catch (error) {
      if (!this.groupsTrouble && !this.#ending.signal.aborted) {
        this.#options.logger.warn({ error: messageOf(error) }, 'committed offsets were not written to the target');
      }
      this.groupsTrouble = messageOf(error);
    }
  }

  /** What is on its way is awaited for a moment; what is not known then is read back from the target. */
  async #settle(): Promise<void> {
    const { hurry } = this.#options;
    const timer = new AbortController();
    const over = delay(settleMs, undefined, { signal: timer.signal, ref: false }).catch(() => {});
    const settled = Promise.allSettled(this.#runs).then(() =>
      Promise.allSettled(Array.from(this.#copies.values(), copy => copy.settle())),
    );
    await Promise.race([settled, over, aborted(hurry)]);
    timer.abort();
  }
}

function strictly(error: Error): MirrorStopped {
  return new MirrorStopped(
    error.message,
    'mend it in the target and resume, or set strict: false, and the rest goes on',
  );
}

/** So many at once; the others wait in turn. */
function slots(most: number): <T>(work: () => Promise<T>) => Promise<T> {
  let taken = 0;
  const waiting: (() => void)[] = [];
  return async work => {
    while (taken >= most) await new Promise<void>(resolve => waiting.push(resolve));
    taken++;
    try {
      return await work();
    } finally {
      taken--;
      waiting.shift()?.();
    }
  };
}
