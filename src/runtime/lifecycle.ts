// The order in which a server's parts come up and go down. Going down has two steps, because a client deserves
// the answer to what it has asked: drain takes no more work and finishes what there is, stop gives up the rest.
// Parts stop in the reverse order of their start, within one timeout for all.
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from './errors.ts';
import type { Logger } from './logger.ts';

export interface Part {
  readonly name: string;
  /** Takes no more work and finishes what is under way. May be called before the part has started. */
  drain?(): Promise<void> | void;
  /** Ends the part. May be called before it has started, and twice. `hurry` is aborted when time is up. */
  stop(hurry: AbortSignal): Promise<void> | void;
}

export type State = 'starting' | 'ready' | 'draining' | 'stopped';

/** How long a part may still take once it has been told to hurry, before the next one is stopped. */
const graceMs = 1000;

export class Lifecycle {
  readonly #logger: Logger;
  readonly #parts: Part[] = [];
  readonly #hurry = new AbortController();
  #state: State = 'starting';
  #stopped: Promise<void> | undefined;

  constructor(logger: Logger) {
    this.#logger = logger;
    setMaxListeners(0, this.#hurry.signal); // each part listens, and what it stops with it
  }

  get state(): State {
    return this.#state;
  }

  /** To be called before the part starts, so that a part that has started half is stopped too. */
  add(part: Part): void {
    if (this.#state !== 'starting') throw new StoppedWhileStarting();
    this.#parts.push(part);
  }

  /** Between the steps of a start: throws when a signal has asked to stop meanwhile. */
  throwIfStopping(): void {
    if (this.#stopped !== undefined) throw new StoppedWhileStarting();
  }

  ready(): void {
    this.throwIfStopping();
    this.#state = 'ready';
  }

  /** Drains and stops all parts; a second call waits for the same end. */
  stop(timeoutMs: number): Promise<void> {
    this.#stopped ??= this.#stop(timeoutMs);
    return this.#stopped;
  }

  /** Gives up what is still under way. */
  hurry(): void {
    this.#hurry.abort();
  }

  async #stop(timeoutMs: number): Promise<void> {
    this.#state = 'draining';
    const parts = this.#parts.toReversed();
    // A third is kept for stopping what does not drain.
    const drainTimer = new AbortController();
    const drained = Promise.all(parts.map(part => this.#attempt(part, 'drain', async () => part.drain?.())));
    await Promise.race([drained, this.#wait((timeoutMs * 2) / 3, drainTimer.signal)]);
    drainTimer.abort();
    const timer = setTimeout(() => this.hurry(), timeoutMs / 3);
    for (const part of parts) {
      const done = new AbortController();
      const stopping = this.#attempt(part, 'stop', async () => part.stop(this.#hurry.signal)).finally(() =>
        done.abort(),
      );
      const timedOut = await Promise.race([stopping.then(() => false), this.#untilGraceIsOver(done.signal)]);
      if (timedOut) this.#logger.error({ part: part.name }, 'gave up waiting for a part to stop');
    }
    clearTimeout(timer);
    this.#state = 'stopped';
  }

  async #attempt(part: Part, step: string, work: () => Promise<void> | undefined): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#logger.error({ part: part.name, step, error: messageOf(error) }, 'a part did not stop cleanly');
    }
  }

  /** Until the time is over, hurry is asked for, or `done`. */
  async #wait(ms: number, done: AbortSignal): Promise<void> {
    await delay(ms, undefined, { signal: AbortSignal.any([this.#hurry.signal, done]) }).catch(() => {});
  }

  async #untilGraceIsOver(done: AbortSignal): Promise<boolean> {
    if (!this.#hurry.signal.aborted) {
      await new Promise<void>(resolve => {
        this.#hurry.signal.addEventListener('abort', () => resolve(), { once: true });
        done.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    if (done.aborted) return false;
    return delay(graceMs, true, { signal: done }).catch(() => false);
  }
}

/** Not a failure: somebody asked to stop before the start was over. */
export class StoppedWhileStarting extends Error {
  override name = 'StoppedWhileStarting';
  override message = 'stopped while starting';
}
