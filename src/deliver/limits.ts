// Bounds: how often a subscriber may ask, and how many reads of the inbox run and wait at once.

interface Bucket {
  tokens: number;
  at: number;
}

/** Requests per subscriber: a rate, and a burst of as many as come in `burstS` seconds. */
export class RequestRate {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(perSecond: number, burstS = 5) {
    this.#perSecond = perSecond;
    this.#burst = perSecond * burstS;
  }

  /** Takes one. Returns how long to wait for the next where there is none, s. */
  take(subscriber: string, now = Date.now()): number {
    const bucket = this.#buckets.get(subscriber) ?? { tokens: this.#burst, at: now };
    bucket.tokens = Math.min(this.#burst, bucket.tokens + ((now - bucket.at) / 1000) * this.#perSecond);
    bucket.at = now;
    this.#buckets.set(subscriber, bucket);
    if (bucket.tokens < 1) return Math.ceil((1 - bucket.tokens) / this.#perSecond);
    bucket.tokens--;
    return 0;
  }

  /** Forgets those whose burst is whole again. */
  sweep(now = Date.now()): void {
    for (const [subscriber, { tokens, at }] of this.#buckets) {
      if (tokens + ((now - at) / 1000) * this.#perSecond >= this.#burst) this.#buckets.delete(subscriber);
    }
  }
}

/** A few at once, the others in the order in which they came. */
export class Turnstile {
  readonly #atOnce: number;
  readonly #maxWaiting: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(atOnce: number, maxWaiting: number) {
    this.#atOnce = atOnce;
    this.#maxWaiting = maxWaiting;
  }

  get full(): boolean {
    return this.#waiting.length >= this.#maxWaiting;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#atOnce) await new Promise<void>(resolve => this.#waiting.push(resolve));
    else this.#running++;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }
}
