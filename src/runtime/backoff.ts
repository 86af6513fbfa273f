// Waiting between tries: each wait is a random share of a bound that doubles up to a limit, so that many who failed
// together do not come back together.
export interface BackoffOptions {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** Returns a function that waits a little longer each time it is called, or until `signal` is aborted. */
export function backoff({ firstMs, maxMs }: BackoffOptions): (signal?: AbortSignal) => Promise<void> {
  let boundMs = firstMs;
  return signal => {
    const waitMs = boundMs * (0.5 + Math.random() / 2);
    boundMs = Math.min(boundMs * 2, maxMs);
    return new Promise(resolve => {
      if (signal?.aborted) return resolve();
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      signal?.addEventListener('abort', done);
    });
  };
}
