// Keeps what several sessions do together below a rate: who has spent waits until it may have been spent.

export interface Rate {
  /** undefined: no limit. */
  readonly rowsPerSecond: number | undefined;
  readonly bytesPerSecond: number | undefined;
}

export class Throttle {
  readonly #rate: Rate;
  readonly #now: () => number;
  /** ms; when all that has been spent is paid for. */
  #paidAt = 0;

  constructor(rate: Rate, now: () => number = Date.now) {
    this.#rate = rate;
    this.#now = now;
  }

  /** Rows to take at once, so that a pause is about a second at most. */
  share(most: number): number {
    return Math.max(1, Math.min(most, Math.floor(this.#rate.rowsPerSecond ?? most)));
  }

  /** Returns the ms to wait. */
  spend(rows: number, bytes: number): number {
    const { rowsPerSecond = Number.POSITIVE_INFINITY, bytesPerSecond = Number.POSITIVE_INFINITY } = this.#rate;
    const now = this.#now();
    const costMs = 1000 * Math.max(rows / rowsPerSecond, bytes / bytesPerSecond);
    this.#paidAt = Math.max(this.#paidAt, now) + costMs;
    return this.#paidAt - now;
  }
}
