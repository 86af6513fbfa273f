// The people of the bench: processes of the demo's clients with an event stream each, and what they have received.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Histogram } from '../../examples/notifications/histogram.ts';
import type { ClientReport } from '../../examples/notifications/notification.ts';

export class Audience {
  readonly #child: ChildProcess;
  readonly #size: number;
  #connections = 0;
  /** Since the last reset. */
  events = 0;
  latencies = new Histogram();
  /** Since the beginning. */
  all = 0;
  lost = 0;
  repeated = 0;
  recoveredMs: number | undefined;

  private constructor(url: string, size: number) {
    this.#size = size;
    const program = fileURLToPath(new URL('../../examples/notifications/clients.ts', import.meta.url));
    this.#child = fork(program, [url, `${size}`], { execArgv: ['--import', 'tsx'] });
    this.#child.on('message', (report: ClientReport) => {
      this.#connections = report.connections;
      this.events += report.events;
      this.all += report.events;
      this.lost += report.lost;
      this.repeated += report.duplicates;
      this.recoveredMs = report.recoveredMs ?? this.recoveredMs;
      this.latencies.merge(new Histogram(report.latencies));
    });
  }

  /** Resolves when all have their streams. */
  static async connect(url: string, size: number): Promise<Audience> {
    const audience = new Audience(url, size);
    await audience.until(() => audience.#connections === size, 120_000);
    return audience;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  reset(): void {
    this.events = 0;
    this.latencies = new Histogram();
  }

  /** All lose their connections at once. Resolves with the ms until the last has its stream again. */
  async drop(): Promise<number> {
    this.recoveredMs = undefined;
    this.#child.send('drop');
    await this.until(() => this.recoveredMs !== undefined, 120_000);
    return this.recoveredMs!;
  }

  /** Looks at each report; throws after `patienceMs`. */
  async until(condition: () => boolean, patienceMs: number): Promise<void> {
    const deadline = Date.now() + patienceMs;
    while (!condition()) {
      if (Date.now() > deadline) throw new Error(`${this.#connections} of ${this.#size} are connected`);
      await once(this.#child, 'message');
    }
  }

  async leave(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    this.#child.kill('SIGTERM');
    await once(this.#child, 'exit');
  }
}
