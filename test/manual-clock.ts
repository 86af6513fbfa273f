// Time that stands still until a test moves it.
import type { Clock, Timer } from '../src/broker/groups/clock.ts';

interface Pending {
  readonly dueMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class ManualClock implements Clock {
  nowMs = 0;
  #timers = new Set<Pending>();
  #order = 0;

  get pending(): number {
    return this.#timers.size;
  }

  after(delayMs: number, run: () => void): Timer {
    const timer = { dueMs: this.nowMs + Math.max(delayMs, 0), order: this.#order++, run };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  /** Runs what falls due on the way, in order, and after each lets what it began go on. */
  async advance(byMs: number): Promise<void> {
    const until = this.nowMs + byMs;
    await settle();
    for (;;) {
      const [next] = [...this.#timers]
        .filter(({ dueMs }) => dueMs <= until)
        .sort((a, b) => a.dueMs - b.dueMs || a.order - b.order);
      if (!next) break;
      this.#timers.delete(next);
      this.nowMs = Math.max(this.nowMs, next.dueMs);
      next.run();
      await settle();
    }
    this.nowMs = until;
  }
}

/** Lets everything that waits for nothing but promises go on. */
export async function settle(): Promise<void> {
  await new Promise(resolve => setImmediate(resolve));
}
