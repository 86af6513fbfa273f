// The status-column design in a process of its own, with a database of its own on Millrace's PostgreSQL. It reads the same
// topic from the same broker.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createDatabase } from '../peers/database.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Processes } from '../processes.ts';
import type { Notifier } from './notifier.ts';

export class StatusColumnNotifier implements Notifier {
  readonly name = 'status-column';
  readonly description =
    'a table with a status column: inserted in batches, claimed 500 at a time with FOR UPDATE SKIP LOCKED by four pickers, pushed, marked as pushed in batches';
  url = '';
  databaseUrl = '';
  readonly #millrace: Millrace;
  #child: ChildProcess | undefined;

  constructor(millrace: Millrace) {
    this.#millrace = millrace;
  }

  get processes(): Processes {
    return { roots: [this.#child!.pid!] };
  }

  async start(topic: string): Promise<void> {
    this.databaseUrl = await createDatabase(this.#millrace.databaseUrl!, 'bench_status_column');
    const program = fileURLToPath(new URL('status-column.ts', import.meta.url));
    this.#child = fork(program, [this.databaseUrl, this.#millrace.bootstrap, topic], { execArgv: ['--import', 'tsx'] });
    const [url] = await once(this.#child, 'message');
    this.url = url as string;
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}
