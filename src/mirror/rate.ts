// How fast a copy goes: records a second over the last minute, and how long what is left takes at that rate.
export interface Pace {
  readonly recordsPerSecond: number;
  /** Until nothing is left; undefined where nothing moves, or nothing is left. */
  readonly secondsToGo: number | undefined;
}

interface Sample {
  readonly at: number;
  readonly next: bigint;
}

const windowMs = 60_000;

export class Rate {
  readonly #samples: Sample[] = [];

  /** `next`: how far it is, `at` ms since the epoch. */
  sample(next: bigint, at: number): void {
    // What was set back begins anew.
    if (this.#samples.length > 0 && next < this.#samples.at(-1)!.next) this.#samples.length = 0;
    this.#samples.push({ at, next });
    while (this.#samples.length > 2 && this.#samples[1]!.at <= at - windowMs) this.#samples.shift();
  }

  get recordsPerSecond(): number {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.at === first.at) return 0;
    return (Number(last.next - first.next) * 1000) / (last.at - first.at);
  }
}

export function paceOf(lag: bigint, recordsPerSecond: number): Pace {
  const secondsToGo = lag > 0n && recordsPerSecond > 0 ? Math.ceil(Number(lag) / recordsPerSecond) : undefined;
  return { recordsPerSecond: Math.round(recordsPerSecond), secondsToGo };
}
