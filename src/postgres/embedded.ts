// The embedded PostgreSQL: started, watched and stopped. It runs in a session of its own, so that a terminal's
// Ctrl-C reaches Millrace alone, which stops PostgreSQL last. Should Millrace be killed, PostgreSQL goes on; the
// next start ends it (embedded-processes.ts) and begins anew. Should PostgreSQL be killed, it is started again
// under the same address.
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { codeOf, messageOf, OperationalError } from '../runtime/errors.ts';
import { StoppedWhileStarting } from '../runtime/lifecycle.ts';
import type { Logger } from '../runtime/logger.ts';
import { type DataDirectory, giveTo, holdDataDirectory, openDataDirectory } from './data-directory.ts';
import { findInstallation, type Installation, prepareInstallation } from './embedded-binaries.ts';
import { Cluster, lastLines, role } from './embedded-cluster.ts';
import { chooseOwner } from './embedded-owner.ts';
import { endLeftovers, readPostmaster } from './embedded-processes.ts';

const pollMs = 5;
const slowStartMs = 5000;
const maxAttempts = 5;
const logCheckMs = 3_600_000;

export interface EmbeddedOptions {
  /** Absolute. */
  readonly dataDir: string;
  readonly logger: Logger;
  /** Another PostgreSQL than the one npm installed. */
  readonly installation?: Installation;
  /** PostgreSQL's settings, over the tuned ones. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Called when PostgreSQL has ended and cannot be started again. */
  readonly onFailure: (error: OperationalError) => void;
}

export class EmbeddedPostgres {
  readonly directory: DataDirectory;
  readonly #options: EmbeddedOptions;
  #holder: Server | undefined;
  #cluster: Cluster | undefined;
  #port = 0;
  #password = '';
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();
  #stopping = false;
  #logTimer: NodeJS.Timeout | undefined;

  constructor(options: EmbeddedOptions) {
    if (process.getuid === undefined) {
      throw new OperationalError(`the embedded PostgreSQL does not run on ${process.platform}`, {
        code: 'EMBEDDED_POSTGRES',
        hint: 'use a PostgreSQL of your own with --database-url',
      });
    }
    this.#options = options;
    this.directory = openDataDirectory(options.dataDir);
  }

  /** Through the socket: quicker than TCP, and needs no password. */
  get url(): string {
    return this.#urlOf(role);
  }

  /** With the password; for programs that know TCP only. */
  get tcpUrl(): string {
    return `postgres://${role}:${this.#password}@127.0.0.1:${this.#port}/${role}`;
  }

  get port(): number {
    return this.#port;
  }

  /** Takes the data directory, ends what a killed Millrace left running in it, and makes the cluster if there is none. */
  async prepare(): Promise<void> {
    this.#holder = await holdDataDirectory(this.directory);
    if (await endLeftovers(this.directory)) {
      this.#options.logger.warn('ended the PostgreSQL of a Millrace that was killed');
    }
    this.#throwIfStopping();
    const owner = chooseOwner(this.directory.cluster);
    const cluster = new Cluster(
      this.directory,
      owner,
      prepareInstallation(this.#options.installation ?? findInstallation(), owner),
    );
    giveTo(owner, this.directory);
    if (!cluster.exists) {
      this.#options.logger.info({ directory: this.directory.cluster }, 'making the database cluster');
      await cluster.initialise();
    }
    cluster.checkVersion();
    this.#password = cluster.readOrMakePassword();
    this.#port = await this.#lastPort();
    this.#cluster = cluster;
  }

  /** Ready when it resolves. The postmaster is spawned before this first waits for anything, if prepared. */
  async start(): Promise<void> {
    if (this.#cluster === undefined) await this.prepare();
    const cluster = this.#cluster!;
    process.on('exit', this.#onProcessExit);
    await this.#launch(cluster, { mayMove: true });
    await this.#prepareDatabase();
    this.#logTimer = setInterval(() => cluster.boundLog(), logCheckMs).unref();
  }

  /** Fast shutdown; once `hurry` is aborted immediate shutdown, which costs the next start a recovery. */
  async stop(hurry: AbortSignal): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#logTimer);
    const child = this.#child;
    if (child !== undefined) {
      const abandon = () => child.kill('SIGQUIT');
      child.kill('SIGINT');
      if (hurry.aborted) abandon();
      hurry.addEventListener('abort', abandon);
      await this.#exited;
      hurry.removeEventListener('abort', abandon);
    }
    process.off('exit', this.#onProcessExit);
    const holder = this.#holder;
    this.#holder = undefined;
    if (holder) await new Promise(resolve => holder.close(resolve));
  }

  /** A bug may end Millrace without stop(): PostgreSQL is then told to end as well, though nobody waits for it. */
  readonly #onProcessExit = () => {
    this.#child?.kill('SIGINT');
  };

  #throwIfStopping(): void {
    if (this.#stopping) throw new StoppedWhileStarting();
  }

  /** Starts the postmaster and waits until it is ready, with another port when the one it had is taken. */
  async #launch(cluster: Cluster, { mayMove }: { readonly mayMove: boolean }): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      this.#throwIfStopping();
      cluster.configure(this.#port, this.#options.settings ?? {});
      cluster.boundLog();
      const logFrom = cluster.logSize();
      this.#watch(cluster.spawnPostmaster());
      if (await this.#waitUntilReady(cluster)) {
        writeFileSync(this.directory.portFile, `${this.#port}\n`);
        return;
      }
      this.#throwIfStopping();
      const said = cluster.readLog(logFrom);
      if (mayMove && attempt < maxAttempts && said.includes('Address already in use')) {
        this.#port = await freePort();
        continue;
      }
      throw new OperationalError(`the embedded PostgreSQL did not start: ${lastLines(said)}`, {
        code: 'EMBEDDED_POSTGRES',
        hint: `see ${this.directory.logFile}`,
      });
    }
  }

  /** The port of the last time, so that URLs stay good, or a free one. */
  async #lastPort(): Promise<number> {
    const { portFile } = this.directory;
    const last = existsSync(portFile) ? Number(readFileSync(portFile, 'utf8')) : 0;
    const free = Number.isInteger(last) && last > 0 && last < 65_536 && (await listenOnce(last)) !== undefined;
    return free ? last : freePort();
  }

  #watch(child: ChildProcess): void {
    this.#child = child;
    this.#exited = new Promise(resolve => {
      const ended = () => {
        this.#child = undefined;
        resolve();
      };
      child.once('error', ended);
      child.once('exit', ended);
    });
  }

  /** False when the postmaster has ended instead. Recovery after a crash may take its time. */
  async #waitUntilReady(cluster: Cluster): Promise<boolean> {
    const child = this.#child;
    let patience = Date.now() + slowStartMs;
    while (child !== undefined && this.#child === child) {
      const postmaster = readPostmaster(this.directory.cluster);
      if (postmaster?.pid === child.pid && postmaster?.ready) {
        void this.#exited.then(() => this.#restart(cluster));
        return true;
      }
      if (Date.now() > patience) {
        this.#options.logger.info({ log: this.directory.logFile }, 'waiting for PostgreSQL, which may be recovering');
        patience = Date.now() + slowStartMs;
      }
      await delay(pollMs);
    }
    return false;
  }

  async #restart(cluster: Cluster): Promise<void> {
    const { logger } = this.#options;
    if (this.#stopping) return;
    logger.error({ log: this.directory.logFile }, 'PostgreSQL has ended; starting it again');
    for (let attempt = 1; ; attempt++) {
      try {
        await endLeftovers(this.directory);
        await this.#launch(cluster, { mayMove: false });
        logger.info('PostgreSQL is back');
        return;
      } catch (error) {
        if (this.#stopping) return;
        if (attempt === maxAttempts) {
          this.#options.onFailure(this.#asFailure(error));
          return;
        }
        await delay(200 * attempt);
      }
    }
  }

  #asFailure(error: unknown): OperationalError {
    if (error instanceof OperationalError) return error;
    return new OperationalError(`the embedded PostgreSQL cannot be started again: ${messageOf(error)}`, {
      code: 'EMBEDDED_POSTGRES',
      hint: `see ${this.directory.logFile}`,
      cause: error,
    });
  }

  /** What initdb does not make: the role's password, our database, the statistics extension. */
  async #prepareDatabase(): Promise<void> {
    try {
      await withClient(this.tcpUrl, async () => {});
      return;
    } catch (error) {
      // 28P01: the password is not the file's, or there is none yet; 3D000: the database is missing.
      if (codeOf(error) !== '28P01' && codeOf(error) !== '3D000') throw error;
    }
    await withClient(this.#urlOf('template1'), async client => {
      await client.query(`ALTER ROLE ${role} PASSWORD ${client.escapeLiteral(this.#password)}`);
      const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [role]);
      if (rowCount === 0) await client.query(`CREATE DATABASE ${role} TEMPLATE template0`);
    });
    await withClient(this.url, client => client.query('CREATE EXTENSION IF NOT EXISTS pg_stat_statements'));
  }

  #urlOf(database: string): string {
    const sockets = encodeURIComponent(this.directory.sockets);
    return `postgres://${role}@localhost:${this.#port}/${database}?host=${sockets}&sslmode=disable`;
  }
}

async function withClient(url: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

async function freePort(): Promise<number> {
  const port = await listenOnce(0);
  if (port === undefined) throw new Error('no free port on 127.0.0.1');
  return port;
}

/** Listens for a moment on 127.0.0.1; the port, or undefined when it is taken. */
function listenOnce(port: number): Promise<number | undefined> {
  return new Promise(resolve => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen(port, '127.0.0.1', () => {
      const { port: bound } = server.address() as { port: number };
      server.close(() => resolve(bound));
    });
  });
}
