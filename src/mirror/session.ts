// One try of a mirror, from connecting to the other cluster until something breaks or it is to stop: what is the same
// whichever way records go. Topics are taken in one by one, each partition has a copy that runs by itself, and how far they
// are is noted twice a second. What a direction adds: how it opens, which topics there are, and how it ends.
import { setMaxListeners } from 'node:events';
import type { Logger } from 'pino';
import { Cluster } from '../client/cluster.ts';
import type { Remote } from '../client/definition.ts';
import { KafkaError } from '../client/errors.ts';
import type { Pool } from '../postgres/pool.ts';
import { aborted } from '../runtime/aborted.ts';
import { messageOf } from '../runtime/errors.ts';
import { InTurn } from '../runtime/in-turn.ts';
import { Throttle } from '../runtime/throttle.ts';
import type { Log } from '../storage/log.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import type { ServerDefaults } from '../storage/topic-config.ts';
import { type Term, TopicError, type Topics } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { DeadLetters } from './dead-letters.ts';
import { type MirrorDefinition, MirrorStopped, TopicMissing } from './definition.ts';
import type { CopyPositions, CopyStatus, CopyToNote } from './positions.ts';
import { paceOf, Rate } from './rate.ts';

export interface MirrorContext {
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly defaults: ServerDefaults;
  readonly term: () => Term;
  readonly logger: Logger;
  /** Members that groups have here. */
  readonly members: (groups: readonly string[]) => Promise<ReadonlyMap<string, number>>;
  /** The first offset of a time or later, ms since the epoch; undefined where there is none. */
  readonly offsetAt: (partition: PartitionLog, timestamp: bigint) => Promise<bigint | undefined>;
}

export interface SessionOptions<D extends MirrorDefinition = MirrorDefinition> {
  readonly definition: D;
  readonly mirrorId: number;
  readonly logger: Logger;
  readonly stopping: AbortSignal;
  readonly hurry: AbortSignal;
  readonly onRunning: () => void;
}

/** A partition on its way. */
export interface Copy {
  readonly copyId: number;
  status(): CopyStatus;
  /** What has changed since the last time; undefined for nothing. It counts as noted, unless `unnoted` is called. */
  toNote(): CopyToNote | undefined;
  unnoted(changes: CopyToNote): void;
  /** Until it is told to stop, or the topic is gone; throws what it cannot go on after. */
  run(): Promise<void>;
}

const noteEveryMs = 500;
const problemsAgainMs = 5000;

export abstract class Session<D extends MirrorDefinition, C extends Copy> {
  protected readonly context: MirrorContext;
  protected readonly options: SessionOptions<D>;
  /** Aborted when it is to end, or has failed. */
  protected readonly ending: AbortSignal;
  protected readonly cluster: Cluster;
  readonly lane: WriteLane;
  protected readonly throttle: Throttle;
  protected readonly deadLetters: DeadLetters;
  /** By topic id and partition. */
  protected readonly copies = new Map<string, C>();
  protected readonly runs = new Set<Promise<void>>();
  protected positions: CopyPositions | undefined;
  protected groups: { run(): Promise<void> } | undefined;
  readonly #end = new AbortController();
  readonly #adopting = new Map<number | string, Promise<void>>();
  readonly #problems = new Map<string, string>();
  #failure: unknown;
  #trouble: Error | undefined;
  readonly #noting = new InTurn();
  readonly #rates = new Map<number, Rate>();
  #ended: Promise<void> = Promise.resolve();
  /** All topics that there were have been begun. */
  #opened = false;
  groupsTrouble: string | undefined;

  constructor(context: MirrorContext, options: SessionOptions<D>, { bootstrap, tls, sasl }: Remote) {
    this.context = context;
    this.options = options;
    this.ending = this.#end.signal;
    setMaxListeners(0, this.ending, options.hurry); // one of each partition
    const clientId = `millrace-mirror-${options.definition.name}`;
    this.cluster = new Cluster({ bootstrap, tls, sasl, clientId, onTrouble: error => this.troubled(error) });
    this.lane = new WriteLane(context.pool, context.term);
    const { name: mirror, deadLetterTopic: topic, throttle } = options.definition;
    this.throttle = new Throttle({
      rowsPerSecond: throttle.recordsPerSecond,
      bytesPerSecond: throttle.bytesPerSecond,
    });
    this.deadLetters = new DeadLetters({ ...context, mirror, topic });
  }

  /** Bytes on their way. */
  abstract get heldBytes(): number;

  /** Connects, and finds out where the mirror is. */
  protected abstract open(): Promise<void>;
  /** Takes in every topic that there is. */
  protected abstract adoptAll(): Promise<void>;
  /** Takes in those of `topics` that could not be. */
  protected abstract adoptAgain(topics: ReadonlySet<string>): void;
  /** Takes in what comes from now on; returns what ends that. */
  protected abstract watch(): () => void;
  /** It is to stop: what is on its way is awaited. */
  protected abstract settle(): Promise<void>;
  /** Copies that wait for something other than the cluster wait no longer. */
  protected abstract abandon(): void;

  get clusterId(): string | undefined {
    return this.cluster.clusterId;
  }

  get trouble(): Error | undefined {
    return this.#trouble;
  }

  get problems(): { topic: string; reason: string }[] {
    return Array.from(this.#problems, ([topic, reason]) => ({ topic, reason }));
  }

  status(): CopyStatus[] {
    return Array.from(this.copies.values(), copy => {
      const status = copy.status();
      return { ...status, ...paceOf(status.lag, this.#rateOf(copy).recordsPerSecond) };
    });
  }

  #rateOf({ copyId }: C): Rate {
    let rate = this.#rates.get(copyId);
    if (rate === undefined) {
      rate = new Rate();
      this.#rates.set(copyId, rate);
    }
    return rate;
  }

  async syncGroups(): Promise<void> {
    await this.note();
    await this.groups?.run();
  }

  run(): Promise<void> {
    const run = this.#run();
    this.#ended = run.catch(() => {}); // whoever ran it has it
    return run;
  }

  /** Resolves when it has ended. */
  async end(): Promise<void> {
    this.#end.abort();
    if (!this.#opened) this.cluster.close();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { stopping, onRunning, definition } = this.options;
    const end = (): void => this.#end.abort();
    stopping.addEventListener('abort', end);
    if (stopping.aborted) end();
    // Whoever waits for the cluster waits no longer.
    const cut = (): void => {
      if (!this.#opened) this.cluster.close();
    };
    stopping.addEventListener('abort', cut);
    const stopWatching = this.watch();
    const timers: NodeJS.Timeout[] = [];
    try {
      await this.open();
      await this.adoptAll();
      this.#opened = true;
      if (this.#failure === undefined && !this.ending.aborted) onRunning();
      timers.push(
        setInterval(() => this.#background(this.note()), noteEveryMs),
        setInterval(() => this.adoptAgain(new Set(this.#problems.keys())), problemsAgainMs),
        setInterval(() => void this.#syncQuietly(), definition.groupsEveryMs),
      );
      await aborted(this.ending);
      if (this.#failure !== undefined) throw this.#failure;
      await this.settle();
    } finally {
      for (const timer of timers) clearInterval(timer);
      stopWatching();
      end();
      stopping.removeEventListener('abort', end);
      stopping.removeEventListener('abort', cut);
      this.abandon();
      this.cluster.close();
      await Promise.allSettled([...this.#adopting.values(), ...this.runs]);
      await this.note().catch(() => {}); // it is found out the next time
    }
  }

  protected troubled(error: Error | undefined): void {
    const { logger } = this.options;
    if (error && !this.#trouble) logger.warn({ reason: error.message }, 'the other cluster does not do its part');
    if (!error && this.#trouble) logger.info('the other cluster does its part again');
    this.#trouble = error;
  }

  /** The first failure ends the session. */
  protected fail(error: unknown): void {
    this.#failure ??= error;
    this.#end.abort();
  }

  #background(work: Promise<void>): void {
    work.catch((error: unknown) => this.fail(error));
  }

  /** One try after another to take a topic in. Why it cannot be as things are is told, and it is tried again. */
  protected adopt(id: number | string, topic: string, work: () => Promise<void>): Promise<void> {
    const before = this.#adopting.get(id) ?? Promise.resolve();
    const turn = before
      .then(work)
      .then(() => {
        this.#problems.delete(topic);
      })
      .catch((error: unknown) => {
        if (this.ending.aborted) return;
        if (!isProblem(error) || this.options.definition.strict) this.fail(isProblem(error) ? strictly(error) : error);
        else this.#problem(topic, error.message);
      });
    this.#adopting.set(id, turn);
    return turn;
  }

  /** Throws where another mirror would bring back what this one takes, and so on for ever. */
  protected async refuseCircle(of: {
    readonly here: number;
    readonly there: string;
    readonly way: 'in' | 'out';
  }): Promise<void> {
    const other = await this.positions!.nameOfReturn(of);
    if (other === undefined) return;
    throw new TopicMissing(
      `mirror ${other} copies the other way between the same two topics; pause or delete one of them`,
    );
  }

  #problem(topic: string, reason: string): void {
    if (this.#problems.get(topic) !== reason) this.options.logger.warn({ topic, reason }, 'a topic is not mirrored');
    this.#problems.set(topic, reason);
  }

  protected begin(copy: C, key: string, { topic, ended, failed }: CopyEnds): void {
    this.copies.set(key, copy);
    const run = copy
      .run()
      .then(() => {
        if (ended()) this.copies.delete(key);
      })
      .catch(async (error: unknown) => {
        if (!(await failed(error)) || !isProblem(error) || this.options.definition.strict) return this.fail(error);
        this.copies.delete(key);
        this.#problem(topic, error.message);
      })
      .finally(() => this.runs.delete(run));
    this.runs.add(run);
  }

  /** Notes how far it is now. One after another: what is noted later is later. */
  note(): Promise<void> {
    return this.#noting.run(() => this.#noteNow());
  }

  async #noteNow(): Promise<void> {
    const changed: { copy: C; changes: CopyToNote }[] = [];
    const now = Date.now();
    for (const copy of this.copies.values()) {
      const rate = this.#rateOf(copy);
      rate.sample(copy.status().nextOffset, now);
      const changes = copy.toNote();
      if (changes) changed.push({ copy, changes: { ...changes, recordsPerSecond: rate.recordsPerSecond } });
    }
    try {
      await this.positions?.note(changed.map(({ changes }) => changes));
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
      if (!this.groupsTrouble && !this.ending.aborted) {
        this.options.logger.warn({ error: messageOf(error) }, 'committed offsets did not go along');
      }
      this.groupsTrouble = messageOf(error);
    }
  }
}

/** How a copy ends. */
export interface CopyEnds {
  readonly topic: string;
  /** By itself: whether for good. */
  ended(): boolean;
  /** Whether another try of the topic may do where only this topic is ailing; else its failure ends the session. */
  failed(error: unknown): Promise<boolean>;
}

/** What ails one topic, and need not keep the others. */
const isProblem = (error: unknown): error is Error =>
  error instanceof TopicMissing || error instanceof TopicError || (error instanceof KafkaError && !error.retriable);

const strictly = (error: Error): MirrorStopped =>
  new MirrorStopped(error.message, 'mend it and resume, or set strict: false, and the rest goes on');
