// One cluster on disk and the programs that work on it: initdb, postgresql.conf, spawning the postmaster.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { codeOf, OperationalError } from '../runtime/errors.ts';
import type { DataDirectory } from './data-directory.ts';
import { type Installation, majorVersion } from './embedded-binaries.ts';
import { canReach, type Owner } from './embedded-owner.ts';
import { clusterName } from './embedded-processes.ts';
import { formatSettings, hostBasedAuthentication, measureMachine, tunedSettings } from './embedded-settings.ts';

/** The superuser's name, and that of the database. */
export const role = 'millrace';
const maxLogBytes = 16 * 2 ** 20;

export class Cluster {
  readonly #directory: DataDirectory;
  readonly #owner: Owner;
  readonly #installation: Installation;

  constructor(directory: DataDirectory, owner: Owner, installation: Installation) {
    this.#directory = directory;
    this.#owner = owner;
    this.#installation = installation;
  }

  get exists(): boolean {
    return existsSync(join(this.#directory.cluster, 'PG_VERSION'));
  }

  /** Makes the cluster in another directory, renamed when it is whole: initdb may be killed half-way. */
  async initialise(): Promise<void> {
    const { cluster, path } = this.#directory;
    const partial = `${cluster}.new`;
    rmSync(partial, { recursive: true, force: true });
    mkdirSync(partial, { mode: 0o700 });
    this.#own(partial);
    const parameters = [
      ...['-D', this.#visible(partial), '-U', role, '--auth=trust'],
      // A collation that no update of the operating system changes.
      ...['--encoding=UTF8', '--locale=C'],
      ...(majorVersion(this.#installation) < 17 ? [] : ['--locale-provider=builtin', '--builtin-locale=C.UTF-8']),
    ];
    const { failed, text } = await runToEnd(this.#program('initdb'), parameters, this.#spawnOptions(partial));
    if (failed) {
      throw new OperationalError(`PostgreSQL's initdb failed: ${lastLines(text)}`, {
        code: 'EMBEDDED_POSTGRES',
        hint: `see that ${path} has room and can be written`,
      });
    }
    rmSync(cluster, { recursive: true, force: true }); // there only if it has no PG_VERSION
    renameSync(partial, cluster);
  }

  checkVersion(): void {
    const version = readFileSync(join(this.#directory.cluster, 'PG_VERSION'), 'utf8').trim();
    const ours = majorVersion(this.#installation);
    if (Number(version) === ours) return;
    throw new OperationalError(
      `the data in ${this.#directory.cluster} was made by PostgreSQL ${version}, and this Millrace brings PostgreSQL ${ours}`,
      {
        code: 'EMBEDDED_POSTGRES',
        hint: 'start the version of Millrace that made it and move the data with pg_dump, or choose another directory with --data-dir',
      },
    );
  }

  readOrMakePassword(): string {
    const { passwordFile } = this.#directory;
    if (existsSync(passwordFile)) return readFileSync(passwordFile, 'utf8').trim();
    const password = randomBytes(18).toString('base64url');
    writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
    return password;
  }

  configure(port: number, settings: Readonly<Record<string, string>>): void {
    const { cluster, sockets } = this.#directory;
    const configuration = formatSettings({
      ...tunedSettings(measureMachine(cluster), majorVersion(this.#installation)),
      ...settings,
      port: String(port),
      // Relative to the cluster where PostgreSQL cannot pass the directories above (see #visible).
      unix_socket_directories: canReach(sockets, this.#owner) ? `"${sockets}"` : '../run',
      unix_socket_permissions: '0700',
    });
    for (const [name, content] of [
      ['postgresql.conf', configuration],
      ['pg_hba.conf', hostBasedAuthentication],
    ] as const) {
      writeFileSync(join(cluster, name), content, { mode: 0o600 });
      this.#own(join(cluster, name));
    }
  }

  /** In a session of its own; what it says goes to the log file, which outlives us. */
  spawnPostmaster(): ChildProcess {
    const { cluster, logFile } = this.#directory;
    const command = this.#program('postgres');
    const log = openSync(logFile, 'a', 0o600); // appending, so that the file may be cut under PostgreSQL's hands
    try {
      const parameters = ['-D', this.#visible(cluster), '-c', `cluster_name=${clusterName(cluster)}`];
      const stdio: ['ignore', number, number] = ['ignore', log, log];
      const child = spawn(command, parameters, { ...this.#spawnOptions(cluster), detached: true, stdio });
      child.once('error', error => {
        writeFileSync(logFile, `${explainSpawnError(error, command)}\n`, { flag: 'a' });
      });
      return child;
    } finally {
      closeSync(log);
    }
  }

  logSize(): number {
    return statSync(this.#directory.logFile, { throwIfNoEntry: false })?.size ?? 0;
  }

  readLog(from: number): string {
    const file = openSync(this.#directory.logFile, 'r');
    try {
      const buffer = Buffer.alloc(65_536);
      return buffer.toString('utf8', 0, readSync(file, buffer, 0, buffer.length, from));
    } finally {
      closeSync(file);
    }
  }

  boundLog(): void {
    const { logFile } = this.#directory;
    if (this.logSize() < maxLogBytes) return;
    writeFileSync(`${logFile}.old`, readFileSync(logFile), { mode: 0o600 });
    truncateSync(logFile);
  }

  /**
   * The path by which PostgreSQL gets to `directory`, which must be its working directory. Below a directory that it
   * may not enter, Linux still lets a process into the working directory it was started in, by /proc/self/cwd.
   * (PostgreSQL 15 and older leave it for a moment, to find their own files, and do not get back.)
   */
  #visible(directory: string): string {
    if (canReach(directory, this.#owner)) return directory;
    if (process.platform === 'linux') return '/proc/self/cwd';
    throw new OperationalError(`PostgreSQL runs as uid ${this.#owner.uid}, which may not enter ${directory}`, {
      code: 'DATA_DIRECTORY',
      hint: 'run Millrace as a normal user, or choose another directory with --data-dir',
    });
  }

  #program(name: string): string {
    return join(this.#installation.directory, 'bin', name);
  }

  #spawnOptions(cwd: string) {
    const { PATH, TZ } = process.env;
    // Nothing else of our environment: PGDATA, PGPORT and the like are read by PostgreSQL's programs.
    const env = { PATH, LC_ALL: 'C', ...(TZ === undefined ? {} : { TZ }) };
    return process.getuid!() === 0 ? { cwd, env, ...this.#owner } : { cwd, env };
  }

  #own(path: string): void {
    if (process.getuid!() === 0) chownSync(path, this.#owner.uid, this.#owner.gid);
  }
}

function runToEnd(
  command: string,
  parameters: string[],
  options: object,
): Promise<{ readonly text: string; readonly failed: boolean }> {
  return new Promise(resolve => {
    let text = '';
    const child = spawn(command, parameters, { ...options, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.on('data', chunk => {
        text += chunk;
      });
    }
    child.once('error', error => resolve({ text: explainSpawnError(error, command), failed: true }));
    child.once('close', code => resolve({ text, failed: code !== 0 }));
  });
}

/** Where the program is there and yet not found, its loader is missing: a C library other than glibc. */
function explainSpawnError(error: Error, command: string): string {
  if (codeOf(error) !== 'ENOENT' || !existsSync(command)) return `FATAL:  ${error.message}`;
  return 'FATAL:  its binaries need glibc, which this system does not have (use a PostgreSQL of your own with --database-url)';
}

/** What PostgreSQL says last, without the time and process id before it. */
export function lastLines(text: string): string {
  const lines = text.trim().split('\n');
  const fatal = lines.filter(line => /\b(FATAL|PANIC|error):/.test(line));
  const telling = (fatal.length > 0 ? fatal : lines).slice(-2);
  return telling.map(line => line.replace(/^.*?\b(FATAL|PANIC|error): +/, '')).join(', ');
}
