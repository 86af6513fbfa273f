// Whether the rows of a table's next batch are likely to have keys that are new. Then they are copied into the table itself,
// which costs PostgreSQL a third less than a temporary table and INSERT … ON CONFLICT with its speculative insertions.
// Where a key was there after all, or twice in the batch, the transaction is taken back and done again by way of the
// temporary table, and the next try is put off: each time twice as long, so that repeats cost next to nothing.

const firstPause = 8;
const maxPause = 1024;

export class NewKeys {
  #pause = 0;
  #next = firstPause;

  /** Asked once for a batch. */
  expected(): boolean {
    if (this.#pause === 0) return true;
    this.#pause--;
    return false;
  }

  /** They were new. */
  confirmed(): void {
    this.#next = firstPause;
  }

  /** One was not. */
  refuted(): void {
    this.#pause = this.#next;
    this.#next = Math.min(this.#next * 2, maxPause);
  }
}
