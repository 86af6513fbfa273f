// Millrace as `npm start` runs it: the built server in a process of its own, with its embedded PostgreSQL, a data
// directory of this run and free ports. Or one that runs already (--bootstrap, --database-url), which is measured as
// it is; its processes are then not looked at.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../test/free-port.ts';
import { evict } from '../clients/librdkafka.ts';
import { Broker } from './broker.ts';
import { describePostgres, query } from './database.ts';

const ownTree = fileURLToPath(new URL('../..', import.meta.url));
const startTimeoutMs = 120_000;

export interface MillraceOptions {
  /** Another source tree, an earlier commit, and what it is called in the results. */
  readonly tree?: { readonly path: string; readonly name: string; readonly description: string };
  readonly directory: string;
  /** Settings of the server, KEY=VALUE as in millrace.yaml. */
  readonly settings: readonly string[];
  /** Its millrace.yaml. */
  readonly config?: string | undefined;
  readonly running?: { readonly bootstrap: string; readonly databaseUrl: string };
}

export class Millrace extends Broker {
  readonly name: string;
  readonly description: string;
  bootstrap = '';
  override databaseUrl: string | undefined = undefined;
  override postgresPids: number[] = [];
  protected override brokerPids: number[] = [];
  readonly #options: MillraceOptions;
  #settings: readonly string[];
  #child: ChildProcess | undefined;
  #ports: number[] = [];

  constructor(options: MillraceOptions) {
    super();
    this.name = options.tree?.name ?? 'millrace';
    this.description = options.tree?.description ?? 'Millrace, acknowledging after COMMIT';
    this.#options = options;
    this.#settings = options.settings;
  }

  get dataDir(): string {
    return join(this.#options.directory, this.name);
  }

  get http(): string {
    return `http://127.0.0.1:${this.#ports[1]}`;
  }

  async start(): Promise<void> {
    const { running, config } = this.#options;
    const settings = this.#settings;
    if (running) {
      this.bootstrap = running.bootstrap;
      this.databaseUrl = running.databaseUrl;
      return;
    }
    mkdirSync(this.dataDir, { recursive: true });
    if (this.#ports.length === 0) this.#ports = [await freePort(), await freePort()];
    const [kafka, http] = this.#ports as [number, number];
    const addresses = ['--kafka', `127.0.0.1:${kafka}`, '--http', `127.0.0.1:${http}`, '--data-dir', this.dataDir];
    if (config !== undefined) addresses.push('--config', config);
    const log = createWriteStream(join(this.#options.directory, `${this.name}.log`), { flags: 'a' });
    const startScript = join(this.#options.tree?.path ?? ownTree, 'scripts/start.mjs');
    const child = spawn(process.execPath, [startScript, ...addresses, ...settings.map(flagOf)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#child = child;
    await this.#ready(child, `${this.http}/readyz`);
    this.bootstrap = `127.0.0.1:${kafka}`;
    this.brokerPids = [child.pid!];
    const port = readFileSync(join(this.dataDir, 'port'), 'latin1').trim();
    const sockets = encodeURIComponent(join(this.dataDir, 'run'));
    this.databaseUrl = `postgres://millrace@localhost:${port}/millrace?host=${sockets}`;
    const postmaster = readFileSync(join(this.dataDir, 'postgres', 'postmaster.pid'), 'latin1');
    this.postgresPids = [Number(postmaster.split('\n')[0])];
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    this.brokerPids = [];
    this.postgresPids = [];
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }

  /** With more settings than it was started with. */
  async restartWith(settings: readonly string[]): Promise<void> {
    if (this.#options.running) throw new Error('a server that runs already is not restarted');
    await this.stop();
    this.#settings = [...this.#settings, ...settings];
    await this.start();
  }

  async describe(): Promise<Record<string, string>> {
    const { running } = this.#options;
    const settings = this.#settings;
    return {
      settings: running ? 'of a server that was running already' : settings.join(', ') || 'defaults',
      acks: 'all: acknowledged after COMMIT',
      ...(await describePostgres(this.databaseUrl!)),
    };
  }

  /** Restarted, because Postgres's own cache must go as well, with its files dropped from the page cache between. */
  async makeCold(): Promise<void> {
    if (this.#options.running) throw new Error('consume-cold needs a server that the bench starts itself');
    await this.stop();
    await evict(this.dataDir);
    await this.start();
  }

  protected async diskBytes(topic: string): Promise<number> {
    const [row] = await query<{ bytes: string }>(
      this.databaseUrl!,
      `SELECT sum(pg_total_relation_size(to_regclass('kafka.segment_' || s.segment_id))) AS bytes
       FROM kafka.segments s JOIN kafka.topics t USING (topic_id) WHERE t.name = '${topic}'`,
    );
    return Number(row!.bytes);
  }

  async #ready(child: ChildProcess, url: string): Promise<void> {
    const deadline = Date.now() + startTimeoutMs;
    while (Date.now() < deadline) {
      if (child.exitCode !== null) break;
      const answer = await fetch(url).catch(() => undefined);
      if (answer?.ok) return;
      await delay(20);
    }
    const log = join(this.#options.directory, `${this.name}.log`);
    const said = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').slice(-5).join('\n') : '';
    throw new Error(`Millrace did not become ready:\n${said}`);
  }
}

function flagOf(setting: string): string {
  const [key = '', value = ''] = setting.split(/=(.*)/s);
  return `--${key.replaceAll('.', '-')}=${value}`;
}
