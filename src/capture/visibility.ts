// What a database snapshot sees (pg_current_snapshot(): xmin:xmax:xip,…). A change in the stream is told by its
// transaction's id to be in what was read, or to come after it. Positions in the WAL could not tell: a transaction has
// its place there a little before others see it, and much before where it waits for a standby.

export class Visibility {
  readonly #xmax: number;
  readonly #running: ReadonlySet<number>;

  /** `text`: as Postgres prints a pg_snapshot. */
  constructor(text: string) {
    const [, xmax, running] = text.split(':');
    this.#xmax = low32(xmax!);
    this.#running = new Set((running || undefined)?.split(',').map(low32));
  }

  /** Whether the committed transaction `xid` (32 bits, as the stream has them) is seen. */
  sees(xid: number): boolean {
    return ((xid - this.#xmax) | 0) < 0 && !this.#running.has(xid >>> 0);
  }
}

const low32 = (xid: string): number => Number(BigInt.asUintN(32, BigInt(xid)));
