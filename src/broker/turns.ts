// What many wait for at one moment, such as a thousand long polls whose time is up or a hundred consumers of the record
// just committed, is done a few at a time: between two turns of the event loop others are read from and answered.
// Each piece is an immediate of its own, after which Node runs what its promises have to do. So the first answer is on
// the wire before the second is begun, and clients work meanwhile; resolved in one loop, a hundred fetches would go
// forward in step, and all be written at the end.

/** Pieces in one turn: fetches at 20 to 30 µs each. */
const perTurn = 32;

export class Turns {
  readonly #queue: (() => void)[] = [];
  #scheduled = 0;

  /** Runs `piece` in this turn of the event loop or a later one, in the order asked for. */
  add(piece: () => void): void {
    this.#queue.push(piece);
    if (this.#scheduled < perTurn) this.#schedule();
  }

  #schedule(): void {
    this.#scheduled++;
    setImmediate(this.#next);
  }

  readonly #next = (): void => {
    this.#scheduled--;
    const piece = this.#queue.shift()!;
    // An immediate made by an immediate is of the next turn.
    if (this.#queue.length > this.#scheduled) this.#schedule();
    piece();
  };
}
