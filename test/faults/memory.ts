// The broker's resident memory, looked at again and again from its beginning on.
import assert from 'node:assert/strict';
import type { TestServer } from './server.ts';

export class Watch {
  readonly #server: TestServer;
  readonly #timer: NodeJS.Timeout;
  #most = 0;

  constructor(server: TestServer) {
    this.#server = server;
    this.#timer = setInterval(() => this.#look(), 20).unref();
    this.#look();
  }

  /** Ends the watch. */
  assertBelow(bytes: number): void {
    this.#look();
    clearInterval(this.#timer);
    assert.ok(
      this.#most < bytes,
      `the broker took ${(this.#most / 1e6).toFixed(0)} MB, more than ${(bytes / 1e6).toFixed(0)}`,
    );
  }

  get most(): number {
    return this.#most;
  }

  #look(): void {
    if (this.#server.running) this.#most = Math.max(this.#most, this.#server.residentBytes());
  }
}
