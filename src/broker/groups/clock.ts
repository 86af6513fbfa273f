// Time as the groups see it: every timeout goes through a Clock, so that tests move time themselves.

export interface Timer {
  cancel(): void;
}

export interface Clock {
  after(delayMs: number, run: () => void): Timer;
}

const longestDelayMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  after(delayMs, run) {
    // A negative timeout of a client is due at once; setTimeout takes one over its range for 1 ms.
    const timeout = setTimeout(run, Math.min(Math.max(delayMs, 0), longestDelayMs));
    timeout.unref();
    return { cancel: () => clearTimeout(timeout) };
  },
};

export class DeadlineError extends Error {
  override name = 'DeadlineError';
}

/** What `work` yields, or a DeadlineError when that takes too long; `work` itself goes on. */
export function withDeadline<T>(clock: Clock, delayMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(delayMs, () => reject(new DeadlineError(`not done within ${delayMs} ms`)));
    work.then(resolve, reject).finally(() => timer.cancel());
  });
}
