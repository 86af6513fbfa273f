// One mirror: begun again with backoff whenever something breaks, until it is stopped or comes to what a person must decide.
// Where it stands is in the databases on both sides, so beginning again is the same after a lost connection, a restart and a
// kill -9 (outbound.ts, inbound.ts).
//
//   starting ──▶ running ──▶ retrying ──▶ starting …
//                  └──▶ failed (with the way out)      stopped, from anywhere
import type { Logger } from 'pino';
import { aborted } from '../runtime/aborted.ts';
import { backoff } from '../runtime/backoff.ts';
import { codeOf, messageOf } from '../runtime/errors.ts';
import type { Topic } from '../storage/topics.ts';
import { type Primary, SwitchFailed, type Switching, switchPrimary } from './cutover.ts';
import { bootstrapOf, type MirrorDefinition, MirrorStopped } from './definition.ts';
import { Gates } from './gates.ts';
import { InboundSession } from './inbound.ts';
import { OutboundSession } from './outbound.ts';
import type { CopyStatus } from './positions.ts';
import { paceOf } from './rate.ts';
import type { MirrorContext, SessionOptions } from './session.ts';

export type MirrorState = 'starting' | 'running' | 'retrying' | 'failed' | 'paused' | 'stopped';

/** The other cluster. */
export interface RemoteStatus {
  readonly bootstrap: string;
  readonly clusterId: string | undefined;
  /** Why nothing gets through at the moment. */
  readonly trouble: string | undefined;
}

export interface MirrorStatus {
  readonly name: string;
  readonly state: MirrorState;
  /** Why it is retrying or has failed, and what to do. */
  readonly reason: string | undefined;
  readonly hint: string | undefined;
  /** One of the two; the other side is this Millrace. */
  readonly target: RemoteStatus | undefined;
  readonly source: RemoteStatus | undefined;
  /** Records that are not in the target yet. */
  readonly lag: bigint;
  readonly lagMs: number;
  /** Over the last minute, and until nothing is left at that rate; undefined where nothing moves, or nothing is left. */
  readonly recordsPerSecond: number;
  readonly secondsToGo: number | undefined;
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
  #session: OutboundSession | InboundSession | undefined;
  readonly #awaited = new Set<() => void>();
  readonly #gates: Gates;
  /** A cut-over or back. */
  #changing: Promise<void> | undefined;

  constructor(context: MirrorContext, { definition, mirrorId, onState }: MirrorOptions) {
    this.#context = context;
    this.#gates = new Gates(context.log, definition.name);
    this.definition = definition;
    this.#mirrorId = mirrorId;
    this.#onState = onState;
    this.#logger = context.logger.child({ mirror: definition.name });
  }

  start(): void {
    // Whom the target answers waits until it is found.
    for (const topic of this.#context.topics.all()) {
      if (topic.primaryMirror !== this.#mirrorId) continue;
      for (const gate of this.#gates.all(topic)) gate.close();
      // Of a process that was killed nothing is known.
      this.#gates.doubtfulAt = Date.now();
    }
    this.#running ??= this.#run();
  }

  /** Waits a moment for what is on its way; once `hurry` is aborted, for nothing. */
  async stop(hurry?: AbortSignal): Promise<void> {
    this.#stopping.abort();
    const cut = (): void => this.#hurry.abort();
    if (hurry?.aborted) cut();
    hurry?.addEventListener('abort', cut);
    await this.#running;
    await this.#changing;
    hurry?.removeEventListener('abort', cut);
    this.#gates.remove();
    if (this.#state !== 'failed') this.#become('stopped');
  }

  status(): MirrorStatus {
    const partitions = this.#session?.status() ?? [];
    const lag = partitions.reduce((sum, copy) => sum + copy.lag, 0n);
    const recordsPerSecond = partitions.reduce((sum, copy) => sum + (copy.recordsPerSecond ?? 0), 0);
    const remote: RemoteStatus = {
      bootstrap: bootstrapOf(this.definition),
      clusterId: this.clusterId,
      trouble: this.#session?.trouble?.message,
    };
    return {
      name: this.definition.name,
      state: this.#state,
      reason: this.#reason,
      hint: this.#hint,
      target: this.definition.target && remote,
      source: this.definition.source && remote,
      lag,
      ...paceOf(lag, recordsPerSecond),
      lagMs: partitions.reduce((most, { lagMs }) => Math.max(most, lagMs), 0),
      heldBytes: this.#session?.heldBytes ?? 0,
      problems: this.#session?.problems ?? [],
      groupsTrouble: this.#session?.groupsTrouble,
      partitions,
    };
  }

  /** The other cluster's; undefined while it is not known. */
  get clusterId(): string | undefined {
    return this.#session?.clusterId;
  }

  /** Notes how far it is now, instead of within half a second. */
  async note(): Promise<void> {
    await this.#session?.note();
  }

  /** Takes committed offsets along now. Rejects where it does not run, or the other cluster cannot be asked. */
  async syncGroups(): Promise<void> {
    if (this.#session === undefined) throw new Error('the mirror does not run');
    await this.#session.syncGroups();
  }

  /** Ends the session; the next begins at once, by what is set now. Resolves when it has ended. */
  async restart(): Promise<void> {
    await this.#session?.end();
  }

  /** Resolves when it runs, or has not for `ms`. */
  async running(ms: number): Promise<void> {
    const clock = AbortSignal.timeout(ms);
    while (this.#state !== 'running' && !clock.aborted && !this.#stopping.signal.aborted) {
      await Promise.race([new Promise<void>(resolve => this.#awaited.add(resolve)), aborted(clock), this.#stopped]);
    }
  }

  /** What a cut-over needs of it (cutover.ts). Undefined where it does not run, or copies into this log. */
  get switching(): Switching | undefined {
    const session = this.#session;
    if (!(session instanceof OutboundSession) || this.#state !== 'running') return undefined;
    return session.switching(() => this.restart(), this.#stopping.signal);
  }

  /** As switchPrimary; it does not stop before that has ended. */
  async changePrimary(topics: readonly Topic[], to: Primary, timeoutMs: number): Promise<void> {
    const { switching } = this;
    if (switching === undefined) throw new SwitchFailed('the mirror does not run');
    const change = switchPrimary(switching, topics, to, timeoutMs);
    this.#changing = change.catch(() => {}); // whoever asked has it
    await change;
  }

  #become(state: MirrorState, reason?: string, hint?: string): void {
    this.#state = state;
    this.#reason = reason;
    this.#hint = hint;
    this.#onState?.(state, reason);
    for (const wake of this.#awaited) wake();
    this.#awaited.clear();
  }

  #makeSession(): OutboundSession | InboundSession {
    const { definition } = this;
    const options: Omit<SessionOptions, 'definition'> = {
      mirrorId: this.#mirrorId,
      logger: this.#logger,
      stopping: this.#stopping.signal,
      hurry: this.#hurry.signal,
      onRunning: () => this.#become('running'),
    };
    return definition.source
      ? new InboundSession(this.#context, { ...options, definition })
      : new OutboundSession(this.#context, { ...options, definition }, this.#gates);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const fresh = () => backoff({ firstMs: 100, maxMs: 10_000 });
    let wait = fresh();
    while (!signal.aborted) {
      const began = Date.now();
      this.#become('starting');
      const session = this.#makeSession();
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
