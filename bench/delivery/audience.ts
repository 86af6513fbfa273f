// Those whom the bench's events are for (bench/clients/audience.c), a process of its own, and what they have received.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Histogram } from '../../examples/notifications/histogram.ts';
import { now } from '../../examples/notifications/notification.ts';
import { build } from '../clients/build.ts';
import { type Arguments, nameValue } from '../clients/program.ts';

/** Totals, but for the latencies, which are those since the last report. Times are of now(). */
interface Report {
  readonly at: number;
  readonly connections: number;
  readonly events: number;
  readonly duplicates: number;
  /** That were no events of the bench, or of a gap. */
  readonly unknown: number;
  readonly firstAt: number;
  readonly recoveredMs: number;
  readonly cpuS: number;
  readonly latencies: readonly number[];
}

const nothing: Report = {
  ...{ at: 0, connections: 0, events: 0, duplicates: 0, unknown: 0, firstAt: 0 },
  ...{ recoveredMs: -1, cpuS: 0, latencies: [] },
};
const connectPatienceMs = 120_000;

export class Audience {
  readonly #child: ChildProcess;
  #report = nothing;
  /** Of each report: when it was, and how many events had come. */
  #course: { readonly at: number; readonly events: number }[] = [];
  #before = nothing;
  /** Since the last reset. */
  latencies = new Histogram();
  /** Of a receiver. */
  port = 0;
  #told: () => void = () => {};

  private constructor(mode: 'streams' | 'receiver', values: Arguments) {
    const clock = now() - Number(process.hrtime.bigint()) / 1e6;
    const program = build({ name: 'audience', libraries: ['m'] });
    this.#child = spawn(program, [mode, ...nameValue({ ...values, clock })], { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface(this.#child.stdout!).on('line', line => this.#take(JSON.parse(line)));
    this.#child.on('exit', () => this.#told());
  }

  /** A stream each, at `url` with the user's name behind it. Resolves when all have theirs. */
  static async connect(url: string, users: number): Promise<Audience> {
    const { port, pathname } = new URL(url);
    const path = `${pathname}v1/stream?subscriber=user-`;
    const audience = new Audience('streams', { port, path, users });
    await audience.until(() => audience.#report.connections === users, connectPatienceMs);
    return audience;
  }

  /** A receiver of webhooks for all of them. */
  static async receive(users: number): Promise<Audience> {
    const audience = new Audience('receiver', { port: 0, users });
    await audience.until(() => audience.port > 0, connectPatienceMs);
    return audience;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Different ones, since the beginning. */
  get all(): number {
    return this.#report.events;
  }

  /** Since the last reset. */
  get events(): number {
    return this.#report.events - this.#before.events;
  }

  get repeated(): number {
    return this.#report.duplicates;
  }

  get cpuSeconds(): number {
    return this.#report.cpuS;
  }

  reset(): void {
    this.#before = this.#report;
    this.#course = [];
    this.latencies = new Histogram();
  }

  /** Events a second between the moments when shares `from` and `to` of `count` had come. */
  rateBetween(from: number, to: number, count: number): number {
    const when = (events: number): number => {
      const after = this.#course.findIndex(point => point.events >= events);
      const [a, b] = [this.#course[after - 1], this.#course[after]];
      if (b === undefined) return Number.NaN;
      if (a === undefined) return b.at;
      return a.at + ((events - a.events) / (b.events - a.events)) * (b.at - a.at);
    };
    return ((to - from) * count) / ((when(to * count) - when(from * count)) / 1000);
  }

  /** All lose their connections at once. Resolves with the ms until the last has its stream again. */
  async drop(): Promise<number> {
    this.#child.stdin!.write('drop\n');
    await this.until(() => this.#report.recoveredMs < 0, connectPatienceMs);
    await this.until(() => this.#report.recoveredMs >= 0, connectPatienceMs);
    return this.#report.recoveredMs;
  }

  /** Looks at each report; throws after `patienceMs`. */
  async until(condition: () => boolean, patienceMs: number): Promise<void> {
    const deadline = Date.now() + patienceMs;
    while (!condition()) {
      if (this.#child.exitCode !== null) throw new Error('the audience has ended');
      if (Date.now() > deadline) throw new Error(`${this.#report.connections} are connected, ${this.all} events came`);
      await new Promise<void>(resolve => {
        this.#told = resolve;
      });
    }
  }

  async leave(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    this.#child.stdin!.end();
    await once(this.#child, 'exit');
  }

  #take(line: Report | { readonly port: number }): void {
    if ('port' in line) {
      this.port = line.port;
    } else {
      if (line.unknown > this.#report.unknown) throw new Error('something came that is no event of the bench');
      this.#report = line;
      this.#course.push(line);
      this.latencies.merge(new Histogram(line.latencies));
    }
    this.#told();
  }
}
