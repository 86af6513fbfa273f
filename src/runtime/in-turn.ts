// Work that must not overlap with itself.

export class InTurn {
  #last: Promise<unknown> = Promise.resolve();

  /** Begins `work` when what was given before has ended, however it did. A failure may go unheard. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work);
    turn.catch(() => {});
    this.#last = turn;
    return turn;
  }
}
