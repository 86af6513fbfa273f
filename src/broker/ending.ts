// That a connection ends, told to long polls on it. An AbortSignal says the same, but adding and removing a listener
// took 3 of a waiting Fetch's 60 µs.
export class Ending {
  /** Called once, when the connection ends. */
  readonly waiters = new Set<() => void>();
  #begun = false;

  get begun(): boolean {
    return this.#begun;
  }

  begin(): void {
    this.#begun = true;
    for (const waiter of [...this.waiters]) waiter();
  }
}
