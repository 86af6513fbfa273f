// A peer in a process of its own, with a database of its own on Millrace's PostgreSQL. It reads the same topic from the same
// broker: its program is given database URL, bootstrap server, topic and receiver, and tells its URL once it takes events;
// `pause` and `resume` are messages to it, which it answers.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createDatabase } from '../peers/database.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Processes } from '../processes.ts';
import type { Notifier } from './notifier.ts';

export interface Peer {
  readonly name: string;
  readonly description: string;
  /** Beside this file. */
  readonly program: string;
}

export class PeerProcess implements Notifier {
  readonly name: string;
  readonly description: string;
  url = '';
  databaseUrl = '';
  readonly #millrace: Millrace;
  readonly #program: string;
  #child: ChildProcess | undefined;

  constructor(millrace: Millrace, { name, description, program }: Peer) {
    this.#millrace = millrace;
    this.name = name;
    this.description = description;
    this.#program = fileURLToPath(new URL(program, import.meta.url));
  }

  get processes(): Processes {
    return { roots: [this.#child!.pid!] };
  }

  async start(topic: string, receiver: string | undefined): Promise<void> {
    this.databaseUrl = await createDatabase(this.#millrace.databaseUrl!, `bench_${this.name.replaceAll('-', '_')}`);
    const given = [this.databaseUrl, this.#millrace.bootstrap, topic, receiver ?? ''];
    this.#child = fork(this.#program, given, { execArgv: ['--import', 'tsx'] });
    this.url = await this.#answer();
  }

  async pause(): Promise<void> {
    this.#child!.send('pause');
    await this.#answer();
  }

  async resume(): Promise<void> {
    this.#child!.send('resume');
    await this.#answer();
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }

  async #answer(): Promise<string> {
    const [answer] = await Promise.race([once(this.#child!, 'message'), once(this.#child!, 'exit')]);
    if (typeof answer !== 'string') throw new Error(`${this.name} has ended`);
    return answer;
  }
}
