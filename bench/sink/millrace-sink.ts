// Millrace's own sink, with its defaults but for what the command line says.
import { none } from '../peers/cost.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Processes } from '../processes.ts';
import { load } from './load.ts';
import type { SinkScenario } from './scenarios.ts';
import { type SinkSystem, seed, topicOf } from './system.ts';

const name = 'bench';

export class MillraceSink implements SinkSystem {
  readonly name = 'millrace';
  readonly description = 'Millrace: log and sink in one process, offsets in the transaction of the rows';
  readonly #millrace: Millrace;
  readonly #settings: Readonly<Record<string, number>>;
  readonly #loaded = new Set<string>();
  #remotes = 0;

  /** `settings`: of the sink, tasks and the like. */
  constructor(millrace: Millrace, settings: Readonly<Record<string, number>>) {
    this.#millrace = millrace;
    this.#settings = settings;
  }

  pids(): number[] {
    return [...this.sink.roots];
  }

  get sink(): Processes {
    return this.#millrace.payers.broker;
  }

  get broker(): Processes {
    return none;
  }

  get statusUrl(): string {
    return `${this.#millrace.http}/api/sinks/${name}`;
  }

  async prepare(scenario: SinkScenario, records: number): Promise<void> {
    const topic = topicOf(scenario);
    if (this.#loaded.has(topic)) return;
    this.#loaded.add(topic);
    await load(this.#millrace.bootstrap, topic, { ...scenario, seed }, records);
  }

  begin(scenario: SinkScenario): Promise<void> {
    // Where a sink stands in a remote Kafka outlives it, by its group.
    const remote = { source: { bootstrap: this.#millrace.bootstrap }, group: `${name}-${++this.#remotes}` };
    return this.beginWith(topicOf(scenario), scenario.mode, scenario.remote ? remote : {});
  }

  async beginWith(topic: string, mode: SinkScenario['mode'], source: object = {}): Promise<void> {
    const definition = { topics: [topic], table: 'public.metrics', mode, ...source, ...this.#settings };
    const made = await fetch(`${this.#millrace.http}/api/sinks`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name, definition }),
    });
    if (made.status !== 201) throw new Error(`the sink was refused: ${made.status} ${await made.text()}`);
  }

  async failed(): Promise<string | undefined> {
    const { state, reason } = (await (await fetch(this.statusUrl)).json()) as { state: string; reason?: string };
    return state === 'failed' || state === 'retrying' ? `the sink is ${state}: ${reason}` : undefined;
  }

  async end(): Promise<void> {
    const answer = await fetch(this.statusUrl, { method: 'DELETE' });
    if (!answer.ok) throw new Error(`the sink stays: ${answer.status} ${await answer.text()}`);
  }

  async describe(): Promise<Record<string, string>> {
    const given = Object.entries(this.#settings).map(([key, value]) => `${key}=${value}`);
    return { ...(await this.#millrace.describe()), sink: given.join(', ') || 'defaults' };
  }
}
