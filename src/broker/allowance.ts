// An amount that all requests share: who takes of it waits, in the order asked, until there is room. When nothing is
// taken there is room for anything, so that nobody waits for ever.
export class Allowance {
  readonly #most: number;
  #taken = 0;
  readonly #waiting: { readonly amount: number; readonly resolve: () => void }[] = [];

  constructor(most: number) {
    this.#most = most;
  }

  get taken(): number {
    return this.#taken;
  }

  take(amount: number): Promise<void> {
    return new Promise(resolve => {
      this.#waiting.push({ amount, resolve });
      this.#admit();
    });
  }

  give(amount: number): void {
    this.#taken -= amount;
    this.#admit();
  }

  #admit(): void {
    for (;;) {
      const first = this.#waiting[0];
      if (!first || (this.#taken > 0 && this.#taken + first.amount > this.#most)) return;
      this.#waiting.shift();
      this.#taken += first.amount;
      first.resolve();
    }
  }
}
