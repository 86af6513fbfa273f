// Millrace's own mirror with its defaults: source, log and mirror are one process, beside its PostgreSQL.
import { none } from '../peers/cost.ts';
import type { Millrace } from '../peers/millrace.ts';
import { type Processes, treeOf } from '../processes.ts';
import type { MirrorSystem } from './system.ts';

const name = 'bench';

export class MillraceMirror implements MirrorSystem {
  readonly name = 'millrace';
  readonly description = 'Millrace: source and mirror in one process, each record once';
  readonly #millrace: Millrace;
  readonly #target: string;
  #copies = 0;

  constructor(millrace: Millrace, target: string) {
    this.#millrace = millrace;
    this.#target = target;
  }

  get bootstrap(): string {
    return this.#millrace.bootstrap;
  }

  /** Its PostgreSQL's processes come and go. */
  pids(): number[] {
    return treeOf(this.#millrace.processes());
  }

  get copier(): Processes {
    return this.#millrace.payers.broker;
  }

  get broker(): Processes {
    return none;
  }

  get postgres(): Processes {
    return this.#millrace.payers.postgres;
  }

  async begin(topic: string): Promise<string> {
    this.#copies++;
    const copied = `${topic}.${this.name}-${this.#copies}`;
    const definition = { target: { bootstrap: this.#target }, topics: [topic], rename: { [topic]: copied } };
    await this.#ask('', 'POST', JSON.stringify({ name, definition }));
    return copied;
  }

  async failed(): Promise<string | undefined> {
    const { state, reason } = (await this.#ask(`/${name}`, 'GET')) as { state: string; reason?: string };
    return state === 'failed' || state === 'retrying' ? `the mirror is ${state}: ${reason}` : undefined;
  }

  async end(): Promise<void> {
    await this.#ask(`/${name}`, 'DELETE');
  }

  async describe(): Promise<Record<string, string>> {
    return { ...(await this.#millrace.describe()), mirror: 'defaults' };
  }

  /** What `millrace compare` is told. */
  get compareArguments(): string[] {
    return ['compare', name, '--http', new URL(this.#millrace.http).host, '--source', this.bootstrap];
  }

  async #ask(path: string, method: string, body?: string): Promise<unknown> {
    const sent = body === undefined ? {} : { body, headers: { 'content-type': 'application/json' } };
    const answer = await fetch(`${this.#millrace.http}/api/mirrors${path}`, { method, ...sent });
    const said = await answer.text();
    if (!answer.ok) throw new Error(`${method} of the mirror: ${answer.status} ${said}`);
    return said === '' ? undefined : JSON.parse(said);
  }
}
