// Backpressure in bytes: what requests and answers in flight may hold in memory, for all connections together. Over
// the bound no connection is read until something is given back; the one exception keeps progress possible: while no
// request is being served, so that nothing will be given back, one connection may go on until its frame is whole.
export interface Paused {
  /** Reads on. */
  resume(): void;
}

export class Budget {
  readonly #maxBytes: number;
  #held = 0;
  #serving = 0;
  readonly #paused = new Set<Paused>();
  #exception: Paused | undefined;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get held(): number {
    return this.#held;
  }

  get over(): boolean {
    return this.#held > this.#maxBytes;
  }

  /** What a fetch may still read. */
  get free(): number {
    return Math.max(this.#maxBytes - this.#held, 0);
  }

  take(bytes: number): void {
    this.#held += bytes;
  }

  give(bytes: number): void {
    this.#held -= bytes;
    this.#wake();
  }

  /** A request has begun to be served: its memory will be given back. */
  beginServing(): void {
    this.#serving++;
  }

  endServing(): void {
    this.#serving--;
    this.#wake();
  }

  /** Whether this connection may be read although the bound is passed. */
  excepts(connection: Paused): boolean {
    return this.#exception === connection;
  }

  /** Will be resumed when there is room, or when it is this connection's turn to be the exception. */
  pause(connection: Paused): void {
    this.#paused.add(connection);
    this.#wake();
  }

  /** The frame that was let through is whole, or the connection is gone. */
  release(connection: Paused): void {
    this.#paused.delete(connection);
    if (this.#exception === connection) {
      this.#exception = undefined;
      this.#wake();
    }
  }

  #wake(): void {
    if (!this.over) {
      for (const connection of [...this.#paused]) {
        if (this.over) return;
        this.#paused.delete(connection);
        connection.resume();
      }
    } else if (this.#serving === 0 && this.#exception === undefined) {
      const [first] = this.#paused;
      if (!first) return;
      this.#paused.delete(first);
      this.#exception = first;
      first.resume();
    }
  }
}
