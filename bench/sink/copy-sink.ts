// The limit: the same rows, made ready beforehand, by COPY into a staging table and one statement a batch.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { nameValue } from '../clients/program.ts';
import { none } from '../peers/cost.ts';
import { describePostgres } from '../peers/database.ts';
import type { Processes } from '../processes.ts';
import type { SinkScenario } from './scenarios.ts';
import { type SinkSystem, type SinkSystemContext, seed, synchronousCommit } from './system.ts';

const program = fileURLToPath(new URL('./copy-client.ts', import.meta.url));
const connections = 2;
const batchRows = 20_000;

export class CopySink implements SinkSystem {
  readonly name = 'copy';
  readonly description =
    'COPY of ready rows into a staging table, then one upsert a batch; insert: COPY into the table';
  readonly #table: SinkSystemContext['table'];
  #child: ChildProcess | undefined;
  #said = '';

  constructor({ table }: SinkSystemContext) {
    this.#table = table;
  }

  pids(): number[] {
    return [...this.sink.roots];
  }

  get sink(): Processes {
    return this.#child?.pid === undefined ? none : { roots: [this.#child.pid] };
  }

  get broker(): Processes {
    return none;
  }

  async prepare(): Promise<void> {}

  async begin({ mode, repeats }: SinkScenario, records: number): Promise<void> {
    const values = { url: this.#table.url, mode, repeats, seed, records, connections, batchRows, synchronousCommit };
    this.#said = '';
    const child = spawn(process.execPath, ['--import', 'tsx', program, ...nameValue(values)], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child = child;
    child.stderr.on('data', chunk => {
      this.#said += chunk;
    });
    // Its rows are ready.
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
  }

  async failed(): Promise<string | undefined> {
    const code = this.#child?.exitCode;
    return code ? `exit ${code}: ${this.#said.trim()}` : undefined;
  }

  async end(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.stdin!.end();
    await ended;
  }

  async describe(): Promise<Record<string, string>> {
    return {
      connections: String(connections),
      'rows in a transaction': String(batchRows),
      synchronous_commit: synchronousCommit,
      ...(await describePostgres(this.#table.url)),
    };
  }
}
