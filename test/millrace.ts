// A whole Millrace as a process of its own, as `npm start` runs it, for tests from outside.
import { type ChildProcess, spawn } from 'node:child_process';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { canReach } from '../src/postgres/embedded-owner.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What Node is given: what test/run.ts has built, which starts three times as fast; else the sources. */
export const mainProgram: readonly string[] = process.env.MILLRACE_TEST_MAIN
  ? [process.env.MILLRACE_TEST_MAIN]
  : ['--import', 'tsx', 'src/main.ts'];

export interface Options {
  readonly env?: Readonly<Record<string, string>>;
  /** What the flags are given to, instead of `mainProgram`. */
  readonly command?: readonly [string, ...string[]];
  /** As another user, which only root can. */
  readonly user?: { readonly uid: number; readonly gid: number };
}

/** Why `user` cannot run a Millrace from here, or false. */
export function cannotRunAs(user: NonNullable<Options['user']>): string | false {
  if (process.getuid!() !== 0) return 'only root can become another user';
  for (const path of [root, `${root}node_modules`, dirname(process.execPath)]) {
    if (!canReach(path, user)) return `another user cannot reach ${path}`;
  }
  return false;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class Millrace {
  readonly #child: ChildProcess;
  readonly exited: Promise<Exit>;
  stdout = '';
  stderr = '';
  readonly #waiting = new Set<() => void>();
  #ended = false;

  /** On free ports, unless the flags say otherwise. */
  constructor(flags: readonly string[], options: Options = {}) {
    const { PATH = '', TMPDIR } = process.env;
    const [program, ...parameters] = options.command ?? [process.execPath, ...mainProgram];
    this.#child = spawn(program, [...parameters, '--kafka=127.0.0.1:0', '--http=127.0.0.1:0', ...flags], {
      cwd: root,
      env: { PATH, HOME: '/nonexistent', ...(TMPDIR === undefined ? {} : { TMPDIR }), ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...options.user,
    });
    this.#child.stdout!.on('data', chunk => {
      this.stdout += chunk;
      this.#notify();
    });
    this.#child.stderr!.on('data', chunk => {
      this.stderr += chunk;
      this.#notify();
    });
    this.exited = new Promise(resolve => {
      this.#child.once('close', (code, signal) => {
        this.#ended = true;
        this.#notify();
        resolve({ code, signal });
      });
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get http(): string {
    return /HTTP +(http:\S+)\//.exec(this.stdout)![1]!;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  ready(): Promise<this> {
    return this.until(() => this.stdout.includes('Ctrl-C stops it'), 'ready');
  }

  logged(message: string): Promise<this> {
    return this.until(() => this.stderr.includes(message), `log line "${message}"`);
  }

  /** Waits until something that has been printed makes `condition` true. */
  async until(condition: () => boolean, what: string): Promise<this> {
    while (!condition()) {
      if (this.#ended) throw new Error(`millrace ended before ${what}:\n${this.stdout}${this.stderr}`);
      await new Promise<void>(resolve => this.#waiting.add(resolve));
    }
    return this;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    this.kill(signal);
    return this.exited;
  }

  #notify(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }
}
