// Backpressure in bytes: what all connections together may hold in memory, one half for requests, one for answers that
// clients have not taken yet, so that those who do not read cannot keep others from asking.
//
// Requests. A frame is read on when a quarter of all has room for the memory it will take; connections that find none
// wait for it in line, unread. So those that have begun get whole, instead of all standing half-way. Past the half, no
// connection has more than one request under way. Two rules keep progress possible: while nothing is under way that
// will give memory back, the first in line may go on regardless; and while others wait, a connection whose turn it is
// to send the rest of a frame, but does not, is closed: otherwise a few clients that announce requests and send
// nothing would stop everybody. How much comes with one read is not known before, so very many connections together
// may pass these bounds, but not the whole: then the one that has just read is closed.
//
// Answers past their half: a fetch reads little (handlers/01-fetch.ts), and a connection with an answer waiting gets
// no further one.
export interface Paused {
  /** The memory that the rest of its frame will take; 0 between frames. */
  readonly wanted: number;
  /** Reads on, with `claimed` bytes kept for it; says beginFrame again if it is in the middle of one. */
  resume(claimed: number): void;
  /** Closes the connection. */
  giveUp(): void;
}

/** How long the rest of a frame may take while others wait for its memory, ms. */
const patienceMs = 5000;
const tickMs = 500;
/** What a connection takes at once that goes on between frames: Node reads 64 KiB, and small requests cost more. */
const readBytes = 131_072;

export class Budget {
  readonly #maxBytes: number;
  #requests = 0;
  /** Promised to frames that are being read, on top of what they have taken. */
  #claims = 0;
  #answers = 0;
  #pending = 0;
  readonly #paused = new Set<Paused>();
  #exception: Paused | undefined;
  /** Connections that are in the middle of a frame, and since when it is their turn to go on. */
  readonly #receiving = new Map<Paused, number>();
  #ticking: NodeJS.Timeout | undefined;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get held(): number {
    return this.#requests + this.#answers;
  }

  /** Connections are read no further. */
  get over(): boolean {
    return this.#room < 0;
  }

  /** A connection's next request begins when the one before is answered. */
  get tight(): boolean {
    return this.#requests > this.#maxBytes / 2;
  }

  /** Nothing more can be taken: who has just taken some must go. */
  get exhausted(): boolean {
    return this.#requests > this.#maxBytes;
  }

  get answersOver(): boolean {
    return this.#answers > this.#maxBytes / 2;
  }

  /** What a fetch may still read. */
  get free(): number {
    return Math.max(this.#maxBytes / 2 - this.#answers, 0);
  }

  get #room(): number {
    return this.#maxBytes / 4 - this.#requests - this.#claims;
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

  /** Keeps memory for the rest of a frame; not before others who wait. */
  claim(bytes: number): boolean {
    if (this.#paused.size > 0 || bytes > this.#room) return false;
    this.#claims += bytes;
    return true;
  }

  /** A claim has been used, or is not needed any more. */
  unclaim(bytes: number): void {
    this.#claims -= bytes;
  }

  /** Whole requests that will be answered, and their memory given back, by our own doing. */
  changePending(by: number): void {
    this.#pending += by;
    if (by < 0) this.#wake();
  }

  /** Whether this connection may be read although there is no room. */
  excepts(connection: Paused): boolean {
    return this.#exception === connection;
  }

  /** The connection is in the middle of a frame, and it is its client's turn. */
  beginFrame(connection: Paused): void {
    if (!this.#receiving.has(connection)) this.#receiving.set(connection, performance.now());
  }

  /** The frame is kept waiting by us, not by its client. */
  suspendFrame(connection: Paused): void {
    this.#receiving.delete(connection);
  }

  /** Will be resumed when there is room, or when it is this connection's turn to be the exception. */
  pause(connection: Paused): void {
    this.#paused.add(connection);
    this.suspendFrame(connection);
    this.#wake();
    if (this.#paused.size > 0) this.#ticking ??= setInterval(() => this.#tick(), tickMs).unref();
  }

  /** The connection's frame is whole, or the connection is gone. */
  release(connection: Paused): void {
    this.#paused.delete(connection);
    this.#receiving.delete(connection);
    if (this.#exception === connection) this.#exception = undefined;
    this.#wake();
  }

  #wake(): void {
    // Those resumed between frames take their memory when they read, which is later.
    let expected = 0;
    for (const connection of this.#paused) {
      const { wanted } = connection;
      if (wanted + expected <= this.#room) {
        if (wanted === 0) expected += readBytes;
        this.#claims += wanted;
        this.#paused.delete(connection);
        connection.resume(wanted);
      } else {
        if (this.#pending === 0 && this.#receiving.size === 0 && this.#exception === undefined) {
          this.#exception = connection;
          this.#paused.delete(connection);
          connection.resume(0);
        }
        return;
      }
    }
  }

  /** Closes those who have kept others waiting for too long. An idle exception makes way. */
  #tick(): void {
    if (this.#paused.size === 0) {
      clearInterval(this.#ticking);
      this.#ticking = undefined;
      return;
    }
    const before = performance.now() - patienceMs;
    for (const [connection, since] of [...this.#receiving]) if (since <= before) connection.giveUp();
    if (this.#exception && !this.#receiving.has(this.#exception)) this.#exception = undefined;
    this.#wake();
  }
}
