// Debezium's embedded engine on this machine: what the differ compares with, and what the benchmark runs beside. Its jars
// come from Maven Central into .cache/ once; the runner is compiled when it has changed. Callers must stop() it.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const debeziumVersion = '3.6.1.Final';

const here = fileURLToPath(new URL('.', import.meta.url));
const cache = fileURLToPath(new URL('../../.cache', import.meta.url));
const jars = join(cache, `debezium-${debeziumVersion}`);
const classes = join(cache, 'compat-debezium');

export interface DebeziumOptions {
  /** The engine's and the connector's; names as Debezium documents them. See DebeziumRunner.java for the defaults. */
  properties: Readonly<Record<string, string>>;
  to: `file:${string}` | `kafka:${string}`;
  /** For its properties and its log. */
  directory: string;
  /** JVM heap, default 1G. */
  heap?: string;
}

export interface Debezium {
  readonly pid: number;
  readonly logFile: string;
  /** Why it has ended by itself; undefined while it runs. */
  failed(): string | undefined;
  /** Ends it once everything it has read is where it should be. */
  stop(): Promise<void>;
}

/** Why it cannot run here; undefined when it can. */
export function debeziumIsMissing(): string | undefined {
  for (const program of ['java', 'javac']) if (!runs(program)) return `no ${program} (a JDK 17 or newer)`;
  return existsSync(jars) || runs('mvn') ? undefined : 'no mvn to download Debezium with';
}

const runs = (program: string): boolean => !spawnSync(program, ['--version'], { stdio: 'ignore' }).error;

/** Downloads the jars when absent, compiles the runner; its class path. */
export function debeziumClasspath(): string {
  if (!existsSync(jars)) {
    const partial = `${jars}.partial`;
    rmSync(partial, { recursive: true, force: true });
    run('mvn', [
      '-q',
      '-B',
      '-f',
      join(here, 'pom.xml'),
      'dependency:copy-dependencies',
      `-DoutputDirectory=${partial}`,
    ]);
    renameSync(partial, jars);
  }
  mkdirSync(classes, { recursive: true });
  const sources = readdirSync(here).filter(name => name.endsWith('.java'));
  run('javac', ['-d', classes, '-cp', join(jars, '*'), ...sources.map(name => join(here, name))]);
  return `${classes}:${join(jars, '*')}`;
}

function run(program: string, args: string[]): void {
  const { error, status } = spawnSync(program, args, { stdio: ['ignore', 2, 2] });
  if (error) throw new Error(`${program}: ${error.message}`);
  if (status !== 0) throw new Error(`${program} exited with ${status}`);
}

/** Resolves when the connector has started; a slot that is there already keeps what is written before it streams. */
export function startDebezium(options: DebeziumOptions): Promise<Debezium> {
  const classpath = debeziumClasspath();
  const { directory, heap = '1G' } = options;
  mkdirSync(directory, { recursive: true });
  const config = join(directory, 'debezium.properties');
  const logFile = join(directory, 'debezium.log');
  writeFileSync(config, Object.entries(options.properties).map(propertyLine).join(''));
  const logging = '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn';
  const java = [`-Xms${heap}`, `-Xmx${heap}`, '-XX:+UseG1GC', logging, '-cp', classpath];
  const child = spawn('java', [...java, 'DebeziumRunner', config, '--to', options.to], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log = createWriteStream(logFile, { flags: 'a' });
  child.stderr.pipe(log);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', code => reject(new Error(`Debezium exited with ${code} while starting; see ${logFile}`)));
    child.stdout.on('data', (chunk: Buffer) => {
      if (!chunk.includes('started')) return;
      child.removeAllListeners('exit');
      resolve({
        pid: child.pid!,
        logFile,
        failed: () => (child.exitCode === null ? undefined : readFileSync(logFile, 'utf8').slice(-4000)),
        stop: () => stop(child),
      });
    });
  });
}

/** Of a .properties file, in which a backslash begins an escape. */
const propertyLine = ([name, value]: [string, string]): string => `${name}=${value.replaceAll('\\', '\\\\')}\n`;

function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise(resolve => {
    const lastResort = setTimeout(() => child.kill('SIGKILL'), 60_000);
    child.once('exit', () => {
      clearTimeout(lastResort);
      resolve();
    });
    child.kill('SIGTERM');
  });
}
