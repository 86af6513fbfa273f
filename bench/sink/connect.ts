// Kafka Connect's worker, one JVM that stays over all rounds, with Debezium's JDBC sink as a plugin: Aiven's is not on Maven
// Central. Its jars come from there into .cache/ once.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../../compat/kafka/kafka.ts';

export const connectVersion = '4.3.1';
export const jdbcSinkVersion = '3.6.0.Final';
export const heap = '-Xms2G -Xmx2G';

const pom = fileURLToPath(new URL('./pom.xml', import.meta.url));
const logging = fileURLToPath(new URL('../../compat/kafka/log4j2.properties', import.meta.url));
const cached = (name: string): string => fileURLToPath(new URL(`../../.cache/${name}`, import.meta.url));
const jars = cached(`connect-${connectVersion}`);
const plugins = cached(`connect-jdbc-${jdbcSinkVersion}`);
const startTimeoutMs = 180_000;

/** Throws where it cannot be had. */
function download(): void {
  const maven = (...args: string[]) => run('mvn', ['-q', '-B', '-f', pom, ...args]);
  make(jars, into => maven('dependency:copy-dependencies', `-DoutputDirectory=${into}`));
  make(plugins, into => {
    const artifact = `io.debezium:debezium-connector-jdbc:${jdbcSinkVersion}:tar.gz:plugin`;
    maven('dependency:copy', `-Dartifact=${artifact}`, `-DoutputDirectory=${into}`);
    const archive = join(into, `debezium-connector-jdbc-${jdbcSinkVersion}-plugin.tar.gz`);
    run('tar', ['-xzf', archive, '-C', into]);
    rmSync(archive);
  });
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

  static async start(bootstrap: string, directory: string): Promise<ConnectWorker> {
    download();
    mkdirSync(directory, { recursive: true });
    const [port] = await freePorts(1);
    const url = `http://127.0.0.1:${port}`;
    const json = 'org.apache.kafka.connect.json.JsonConverter';
    const properties = {
      'bootstrap.servers': bootstrap,
      'key.converter': json,
      'value.converter': json,
      'offset.storage.file.filename': join(directory, 'offsets'),
      'plugin.path': plugins,
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
