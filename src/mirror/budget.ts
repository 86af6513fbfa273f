// Bytes that a mirror's partitions may have on their way together. Whoever finds it spent waits to be woken.
export class Budget {
  readonly #most: number;
  #held = 0;
  readonly #waiting = new Set<() => void>();

  constructor(most: number) {
    this.#most = most;
  }

  get held(): number {
    return this.#held;
  }

  get hasRoom(): boolean {
    return this.#held < this.#most;
  }

  take(bytes: number): void {
    this.#held += bytes;
  }

  give(bytes: number): void {
    this.#held -= bytes;
    if (!this.hasRoom) return;
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** Calls `wake` once when there is room again. */
  onRoom(wake: () => void): void {
    this.#waiting.add(wake);
  }

  forget(wake: () => void): void {
    this.#waiting.delete(wake);
  }
}
