// Waiting between tries: each wait is a random share of a bound that doubles up to a limit, so that many who failed
// together do not come back together.
export interface BackoffOptions {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** Returns a function that waits a little longer each time it is called. */
export function backoff({ firstMs, maxMs }: BackoffOptions): () => Promise<void> {
  let boundMs = firstMs;
  return () => {
    const waitMs = boundMs * (0.5 + Math.random() / 2);
    boundMs = Math.min(boundMs * 2, maxMs);
    return new Promise(resolve => setTimeout(resolve, waitMs));
  };
}
