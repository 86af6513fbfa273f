// The real server as a child process, to be killed: broker, PostgreSQL or both, at any instant. Its data lies in a
// temporary directory unless it is given a database.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { clusterName, findProcesses, readPostmaster } from '../../src/postgres/embedded-processes.ts';
import { freePort } from '../free-port.ts';
import { mainProgram } from '../millrace.ts';
import type { Random } from './random.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const keptLogLines = 400;
const keptLogBytes = 8192;

export interface ServerOptions {
  /** Flags without their dashes: `{ 'log.level': 'debug' }`. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly databaseUrl?: string;
}

export class TestServer {
  readonly directory = mkdtempSync(join(tmpdir(), 'millrace-faults-'));
  readonly #options: ServerOptions;
  #port = 0;
  #httpPort = 0;
  #child: ChildProcess | undefined;
  #exited: Promise<number | null> = Promise.resolve(null);
  readonly #log: string[] = [];
  readonly #watchers = new Set<(line: string) => void>();

  private constructor(options: ServerOptions) {
    this.#options = options;
  }

  static async start(options: ServerOptions = {}): Promise<TestServer> {
    const server = new TestServer(options);
    server.#port = await freePort();
    try {
      await server.start();
    } catch (error) {
      await server.remove();
      throw error;
    }
    return server;
  }

  /** For Kafka clients; the same over restarts. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get port(): number {
    return this.#port;
  }

  /** As it is now: another after each start. */
  get httpPort(): number {
    return this.#httpPort;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error('the server is not running');
    return this.#child.pid;
  }

  /** Of the process that runs, when it ends. */
  get exitCode(): Promise<number | null> {
    return this.#exited;
  }

  /** The newest lines of what it has logged. */
  get log(): string {
    return this.#log.join('\n');
  }

  /** Resolves when it is ready; rejects with what it said when it ends instead. */
  async start(): Promise<void> {
    const { settings = {}, databaseUrl } = this.#options;
    const flags: Record<string, string> = {
      kafka: this.address,
      http: '127.0.0.1:0',
      ...(databaseUrl === undefined ? { 'data.dir': join(this.directory, 'data') } : { 'database.url': databaseUrl }),
      ...settings,
    };
    const parameters = Object.entries(flags).flatMap(([key, value]) => [`--${key.replaceAll('.', '-')}`, value]);
    const child = spawn(process.execPath, [...mainProgram, ...parameters], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      // Not this test run's own settings.
      env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MILLRACE_'))),
    });
    this.#child = child;
    const exited = once(child, 'exit').then(([code]) => {
      if (this.#child === child) this.#child = undefined;
      return code as number | null;
    });
    this.#exited = exited;
    createInterface(child.stderr!).on('line', line => this.#note(line));
    const ready = new Promise<void>(resolve => {
      createInterface(child.stdout!).on('line', line => {
        const http = /http:\/\/127\.0\.0\.1:(\d+)\//.exec(line);
        if (http) this.#httpPort = Number(http[1]);
        if (line.includes('stops it')) resolve();
      });
    });
    const ended = exited.then(code => {
      throw new ServerEndedError(code, this.log);
    });
    ended.catch(() => {});
    await Promise.race([ready, ended]);
  }

  /** SIGTERM; resolves with the exit code. */
  async stop(): Promise<number | null> {
    this.#child?.kill('SIGTERM');
    return this.#exited;
  }

  /** SIGKILL to the broker alone; PostgreSQL goes on until the next start ends it. */
  async killBroker(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#exited;
  }

  /** SIGKILL to every process of the embedded PostgreSQL. */
  killPostgres(): void {
    for (const pid of this.postgresProcesses()) kill(pid);
  }

  /** SIGKILL to the postmaster alone: what it leaves behind has to end by itself. */
  killPostmaster(): void {
    const postmaster = readPostmaster(this.#cluster);
    if (postmaster) kill(postmaster.pid);
  }

  /**
   * SIGKILL to one process but the postmaster, on which PostgreSQL ends all the others and recovers. The startup process
   * of that recovery is left alone, also while it still has the postmaster's title: where it is killed right after its
   * fork, PostgreSQL 18.4 stays "in recovery mode" for ever, with a checkpointer and nobody who recovers.
   */
  killBackend(random: Random): void {
    const postmaster = readPostmaster(this.#cluster)?.pid;
    const backends = this.postgresProcesses().filter(pid => pid !== postmaster && !/ -D |startup/.test(titleOf(pid)));
    if (backends.length > 0) kill(random.pick(backends));
  }

  postgresProcesses(): number[] {
    return findProcesses(clusterName(this.#cluster));
  }

  /** What the embedded PostgreSQL's processes do, and the newest of what it has logged. */
  postgresState(): string {
    const titles = this.postgresProcesses().map(pid => `${pid} ${titleOf(pid)}`);
    const log = readFileSync(join(this.directory, 'data', 'postgres.log'), 'utf8').slice(-keptLogBytes);
    return `${titles.join('\n')}\n${log}`;
  }

  /** Ends everything and removes the data. */
  async remove(): Promise<void> {
    await this.killBroker();
    if (this.#options.databaseUrl === undefined) {
      try {
        this.killPostgres();
      } catch {} // it never got as far as a cluster
    }
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }

  /** A superuser's connection to the database, past the broker. */
  async sql(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.databaseUrl });
    client.on('error', () => {}); // the test may kill PostgreSQL
    await client.connect();
    return client;
  }

  get databaseUrl(): string {
    if (this.#options.databaseUrl !== undefined) return this.#options.databaseUrl;
    const data = join(this.directory, 'data');
    const port = readFileSync(join(data, 'port'), 'utf8').trim();
    return `postgres://millrace@localhost:${port}/millrace?host=${encodeURIComponent(join(data, 'run'))}`;
  }

  /** Where HTTP is answered; another port after each start. */
  get http(): string {
    return `http://127.0.0.1:${this.#httpPort}`;
  }

  /** Resident memory of the broker's process, bytes. */
  residentBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) * 1024;
  }

  async metric(name: string): Promise<number> {
    const response = await fetch(`http://127.0.0.1:${this.#httpPort}/metrics`);
    const line = (await response.text()).split('\n').find(line => line.startsWith(`${name} `));
    if (line === undefined) throw new Error(`there is no metric ${name}`);
    return Number(line.slice(name.length + 1));
  }

  onLog(watch: (line: string) => void): void {
    this.#watchers.add(watch);
  }

  /** The next log line that matches. */
  nextLog(pattern: RegExp): Promise<string> {
    return new Promise(resolve => {
      const watch = (line: string) => {
        if (!pattern.test(line)) return;
        this.#watchers.delete(watch);
        resolve(line);
      };
      this.#watchers.add(watch);
    });
  }

  get #cluster(): string {
    return join(this.directory, 'data', 'postgres');
  }

  #note(line: string): void {
    this.#log.push(line);
    if (this.#log.length > keptLogLines) this.#log.shift();
    for (const watch of [...this.#watchers]) watch(line);
  }
}

export class ServerEndedError extends Error {
  override name = 'ServerEndedError';
  /** It did not end by itself. */
  readonly killed: boolean;
  readonly exitCode: number | null;
  constructor(exitCode: number | null, log: string) {
    super(`the server ended with code ${exitCode}: ${log}`);
    this.exitCode = exitCode;
    this.killed = exitCode === null;
  }
}

/** As ps shows it; Linux only, elsewhere nothing. */
function titleOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {} // it has ended meanwhile
}
