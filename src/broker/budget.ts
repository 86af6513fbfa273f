// Backpressure in bytes: what all connections together may hold in memory, one half for requests, one for answers that
// clients have not taken yet, so that those who do not read cannot keep others from asking.
//
// Requests past their half: no connection is read until something is given back. Two exceptions keep progress possible.
// While no request is being served, so that nothing will be given back, one connection may go on until its frame is
// whole. And a connection whose turn it is to send the rest of a frame, but does not, is closed: otherwise a few
// clients that announce requests and send nothing would stop everybody.
//
// Answers past their half: a fetch reads little (handlers/01-fetch.ts), and a connection with an answer waiting gets
// no further one.
export interface Paused {
  /** Reads on; says beginFrame again if it is in the middle of one. */
  resume(): void;
  /** Closes the connection. */
  giveUp(): void;
}

/** How long the rest of a frame may take while others wait for its memory, ms. */
const patienceMs = 5000;

export class Budget {
  readonly #maxBytes: number;
  #requests = 0;
  #answers = 0;
  #serving = 0;
  readonly #paused = new Set<Paused>();
  #exception: Paused | undefined;
  /** Connections that are in the middle of a frame, and since when it is their turn to go on. */
  readonly #receiving = new Map<Paused, number>();
  #reclaiming: NodeJS.Timeout | undefined;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes / 2;
  }

  get held(): number {
    return this.#requests + this.#answers;
  }

  get over(): boolean {
    return this.#requests > this.#maxBytes;
  }

  get answersOver(): boolean {
    return this.#answers > this.#maxBytes;
  }

  /** What a fetch may still read. */
  get free(): number {
    return Math.max(this.#maxBytes - this.#answers, 0);
  }

  takeRequest(bytes: number): void {
    this.#requests += bytes;
  }

  giveRequest(bytes: number): void {
    this.#requests -= bytes;
    this.#wake();
  }

  takeAnswer(bytes: number): void {
    this.#answers += bytes;
  }

  giveAnswer(bytes: number): void {
    this.#answers -= bytes;
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

  /** The connection has begun a frame that is not whole yet. */
  beginFrame(connection: Paused): void {
    if (!this.#receiving.has(connection)) this.#receiving.set(connection, performance.now());
  }

  /** Will be resumed when there is room, or when it is this connection's turn to be the exception. */
  pause(connection: Paused): void {
    this.#paused.add(connection);
    this.#receiving.delete(connection); // what keeps it is not its client
    this.#wake();
    if (this.#paused.size > 0) this.#reclaiming ??= setInterval(() => this.#reclaim(), patienceMs / 10).unref();
  }

  /** The connection's frame is whole, or the connection is gone. */
  release(connection: Paused): void {
    this.#paused.delete(connection);
    this.#receiving.delete(connection);
    if (this.#exception === connection) {
      this.#exception = undefined;
      this.#wake();
    }
  }

  #wake(): void {
    if (!this.over) {
      for (const connection of [...this.#paused]) {
        if (this.over) return;
        this.#resume(connection);
      }
    } else if (this.#serving === 0 && this.#exception === undefined) {
      const [first] = this.#paused;
      if (!first) return;
      this.#exception = first;
      this.#resume(first);
    }
  }

  #resume(connection: Paused): void {
    this.#paused.delete(connection);
    connection.resume();
  }

  /** Closes those who have kept others waiting for too long, until there is room. An idle exception makes way. */
  #reclaim(): void {
    if (this.#paused.size === 0) {
      clearInterval(this.#reclaiming);
      this.#reclaiming = undefined;
      return;
    }
    const before = performance.now() - patienceMs;
    for (const [connection, since] of [...this.#receiving]) {
      if (!this.over) return;
      if (since <= before) connection.giveUp();
    }
    if (this.#exception && !this.#receiving.has(this.#exception)) {
      this.#exception = undefined;
      this.#wake();
    }
  }
}
