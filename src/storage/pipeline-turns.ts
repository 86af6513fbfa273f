// What is asked of one pipeline is done in turn: one that is stopped is never left running beside its successor.
import { PipelineError } from './pipelines.ts';

export class PipelineTurns {
  /** By pipeline: the last thing asked of it. */
  readonly #last = new Map<string, Promise<unknown>>();
  #closed = false;

  get closed(): boolean {
    return this.#closed;
  }

  /** Rejects with a PipelineError once it is closed, and with what `work` rejects with. */
  take<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(name) ?? Promise.resolve();
    const turn = before.then(() => {
      if (this.#closed) throw new PipelineError('state', 'Millrace is stopping');
      return work();
    });
    const settled = turn
      .catch(() => {})
      .finally(() => {
        if (this.#last.get(name) === settled) this.#last.delete(name);
      });
    this.#last.set(name, settled);
    return turn;
  }

  /** Nothing more begins. */
  close(): void {
    this.#closed = true;
  }

  /** Resolves when what has begun is done, or nobody waits for it any more. */
  async done(hurry: AbortSignal): Promise<void> {
    if (hurry.aborted) return;
    const hurried = new Promise(resolve => hurry.addEventListener('abort', resolve, { once: true }));
    await Promise.race([Promise.all(this.#last.values()), hurried]);
  }
}
