// Kafka Connect's worker, one JVM that stays over all rounds, with a plugin whose connectors are made and deleted over HTTP.
// Jars come from Maven Central into .cache/ once.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../test/free-port.ts';

export const connectVersion = '4.3.1';
export const heap = '-Xms2G -Xmx2G';

const pom = fileURLToPath(new URL('./connect.xml', import.meta.url));
const logging = fileURLToPath(new URL('../../compat/kafka/log4j2.properties', import.meta.url));
const cached = (name: string): string => fileURLToPath(new URL(`../../.cache/${name}`, import.meta.url));
const jars = cached(`connect-${connectVersion}`);
const startTimeoutMs = 180_000;

/** Jars of connectors, under this name in .cache/. */
export interface ConnectPlugin {
  readonly name: string;
  /** group:artifact:version[:type[:classifier]]; archives are unpacked. */
  readonly artifacts: readonly string[];
}

/** Returns the path that the plugin is in: one directory, whose jars see each other. Throws where the jars cannot be had. */
function download({ name, artifacts }: ConnectPlugin): string {
  const maven = (...args: string[]) => run('mvn', ['-q', '-B', '-f', pom, ...args]);
  make(jars, into => maven('dependency:copy-dependencies', `-DoutputDirectory=${into}`));
  const path = cached(name);
  make(path, partial => {
    const into = join(partial, 'plugin');
    for (const artifact of artifacts) maven('dependency:copy', `-Dartifact=${artifact}`, `-DoutputDirectory=${into}`);
    for (const archive of readdirSync(into).filter(file => file.endsWith('.tar.gz'))) {
      run('tar', ['-xzf', join(into, archive), '-C', into, '--strip-components=1']);
      rmSync(join(into, archive));
    }
  });
  return path;
}

function make(directory: string, fill: (partial: string) => void): void {
  if (existsSync(directory)) return;
  const partial = `${directory}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  fill(partial);
  renameSync(partial, directory);
}

function run(program: string, args: readonly string[]): void {
  const { error, status } = spawnSync(program, args, { stdio: ['ignore', 2, 2] });
  if (error) throw new Error(`${program}: ${error.message}`);
  if (status !== 0) throw new Error(`${program} exited with ${status}`);
}

export interface ConnectOptions {
  /** Of the Kafka that sinks read and sources write to. */
  readonly bootstrap: string;
  readonly directory: string;
  readonly plugin: ConnectPlugin;
  /** Of keys and values alike. */
  readonly converter: string;
}

interface ConnectorStatus {
  readonly connector: { readonly state: string; readonly trace?: string };
  readonly tasks: readonly { readonly state: string; readonly trace?: string }[];
}

export class ConnectWorker {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #url: string;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.pid = child.pid!;
    this.#url = url;
  }

  static async start({ bootstrap, directory, plugin, converter }: ConnectOptions): Promise<ConnectWorker> {
    const pluginPath = download(plugin);
    mkdirSync(directory, { recursive: true });
    const url = `http://127.0.0.1:${await freePort()}`;
    const properties = {
      'bootstrap.servers': bootstrap,
      'key.converter': converter,
      'value.converter': converter,
      'offset.storage.file.filename': join(directory, 'offsets'),
      'plugin.path': pluginPath,
      'plugin.discovery': 'service_load',
      'connector.client.config.override.policy': 'All',
      listeners: url,
    };
    const config = join(directory, 'worker.properties');
    writeFileSync(
      config,
      Object.entries(properties)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(''),
    );
    const java = [...heap.split(' '), '-XX:+UseG1GC', `-Dlog4j2.configurationFile=file:${logging}`, '-cp', `${jars}/*`];
    const child = spawn('java', [...java, 'org.apache.kafka.connect.cli.ConnectStandalone', config], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const logFile = join(directory, 'connect.log');
    const log = createWriteStream(logFile);
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    for (const deadline = Date.now() + startTimeoutMs; ; await delay(100)) {
      if (child.exitCode !== null) throw new Error(`Kafka Connect exited with ${child.exitCode}; see ${logFile}`);
      const answer = await fetch(`${url}/connectors`).catch(() => undefined);
      if (answer?.ok) return new ConnectWorker(child, url);
      if (Date.now() > deadline) {
        child.kill('SIGKILL');
        throw new Error('Kafka Connect does not answer');
      }
    }
  }

  async create(name: string, config: Readonly<Record<string, string>>): Promise<void> {
    const answer = await fetch(`${this.#url}/connectors`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name, config }),
    });
    if (!answer.ok) throw new Error(`connector ${name}: ${answer.status} ${await answer.text()}`);
  }

  /** The first trace of what has failed. */
  async failed(name: string): Promise<string | undefined> {
    const answer = await fetch(`${this.#url}/connectors/${name}/status`);
    if (!answer.ok) return undefined;
    const { connector, tasks } = (await answer.json()) as ConnectorStatus;
    return [connector, ...tasks].find(({ state }) => state === 'FAILED')?.trace;
  }

  async delete(name: string): Promise<void> {
    await fetch(`${this.#url}/connectors/${name}`, { method: 'DELETE' });
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    const lastResort = setTimeout(() => child.kill('SIGKILL'), 20_000);
    await ended;
    clearTimeout(lastResort);
  }
}
