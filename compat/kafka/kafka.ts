// Apache Kafka on this machine: the broker that the suites are proven against and that the benchmark runs beside.
// Its jars come from Maven Central into .cache/ once. One node, broker and controller in one JVM, options as Kafka's own
// scripts give them. Callers own the data directory and must stop() what they start.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../test/free-port.ts';

export const kafkaVersion = '4.3.1';

const here = fileURLToPath(new URL('.', import.meta.url));
const jars = fileURLToPath(new URL(`../../.cache/kafka-${kafkaVersion}`, import.meta.url));

export interface KafkaOptions {
  /** Client port on 127.0.0.1; 0 or absent: a free one. */
  port?: number;
  /** Formatted when empty; used again as it is otherwise. */
  dataDir: string;
  /** Port the broker tells clients to use, for a proxy in front; default: its own. */
  advertisedPort?: number;
  /** Lines of server.properties, e.g. {'log.flush.interval.messages': '1'}. */
  overrides?: Record<string, string>;
  /** More listeners, advertised as they are: {SASL_SSL: 'localhost:9094'}. */
  listeners?: Record<string, string>;
  /** Users with their passwords, for SCRAM-SHA-256 and SCRAM-SHA-512; when the data directory is formatted. */
  scramUsers?: Record<string, string>;
  /** JVM heap, default 1G as in kafka-server-start.sh. */
  heap?: string;
}

export interface KafkaServer {
  readonly bootstrap: string;
  readonly pid: number;
  readonly logFile: string;
  stop(): Promise<void>;
  /** SIGKILL; resolves when its ports and files are free. */
  kill(): Promise<void>;
}

/** Why Apache Kafka cannot be run here, or false. */
export function kafkaIsMissing(): string | false {
  const runs = (command: string, flag: string) => spawnSync(command, [flag], { stdio: 'ignore' }).status === 0;
  if (!runs('java', '-version')) return 'Apache Kafka needs Java';
  return existsSync(jars) || runs('mvn', '-version') ? false : 'Apache Kafka is downloaded with Maven';
}

/** Downloads the jars when absent; the class path for the broker, its tools and the Java client. */
export function kafkaClasspath(): string {
  if (!existsSync(jars)) {
    const partial = `${jars}.${process.pid}.partial`;
    const pom = join(here, 'pom.xml');
    const goal = ['dependency:copy-dependencies', `-DoutputDirectory=${partial}`];
    const maven = spawnSync('mvn', ['-q', '-B', '-f', pom, ...goal], { stdio: ['ignore', 2, 2] });
    if (maven.error) throw new Error(`Apache Kafka is downloaded with Maven (mvn): ${maven.error.message}`);
    if (maven.status !== 0) throw new Error(`mvn dependency:copy-dependencies exited with ${maven.status}`);
    try {
      renameSync(partial, jars);
    } catch (error) {
      if (!existsSync(jars)) throw error;
      rmSync(partial, { recursive: true }); // another process was quicker
    }
  }
  return join(jars, '*');
}

export async function startKafka(options: KafkaOptions): Promise<KafkaServer> {
  const classpath = kafkaClasspath();
  const port = options.port || (await freePort());
  const controllerPort = await freePort();
  const logs = join(options.dataDir, 'log');
  const more = Object.entries(options.listeners ?? {}).map(([name, address]) => `${name}://${address}`);
  mkdirSync(options.dataDir, { recursive: true });
  const properties: Record<string, string> = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    listeners: [`PLAINTEXT://127.0.0.1:${port}`, ...more, `CONTROLLER://127.0.0.1:${controllerPort}`].join(','),
    'advertised.listeners': [`PLAINTEXT://127.0.0.1:${options.advertisedPort ?? port}`, ...more].join(','),
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': [
      'CONTROLLER:PLAINTEXT',
      ...['PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'].map(name => `${name}:${name}`),
    ].join(','),
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    'log.dirs': logs,
    'offsets.topic.replication.factor': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    'group.initial.rebalance.delay.ms': '0',
    ...options.overrides,
  };
  const config = join(options.dataDir, 'server.properties');
  const lines = Object.entries(properties).map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(config, lines.join(''));
  const java = ['-cp', classpath, `-Dlog4j2.configurationFile=file:${join(here, 'log4j2.properties')}`];
  if (!existsSync(join(logs, 'meta.properties'))) format(java, config, options.scramUsers ?? {});
  return start(java, config, `127.0.0.1:${port}`, join(options.dataDir, 'kafka.log'), options.heap ?? '1G');
}

function format(java: string[], config: string, scramUsers: Record<string, string>): void {
  const clusterId = 'Z2lhbnQtbWlsbHJhY2UtMQ';
  const users = Object.entries(scramUsers).flatMap(([name, password]) =>
    [256, 512].flatMap(bits => ['--add-scram', `SCRAM-SHA-${bits}=[name=${name},password=${password}]`]),
  );
  const tool = spawnSync(
    'java',
    [...java, 'kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', config, ...users],
    { encoding: 'utf8' },
  );
  if (tool.status !== 0) throw new Error(`kafka.tools.StorageTool format: ${tool.error ?? tool.stdout + tool.stderr}`);
}

function start(java: string[], config: string, bootstrap: string, logFile: string, heap: string): Promise<KafkaServer> {
  const collector = '-XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35';
  const flags = [`-Xms${heap}`, `-Xmx${heap}`, '-server', ...collector.split(' '), '-XX:+ExplicitGCInvokesConcurrent'];
  const child = spawn('java', [...flags, ...java, 'kafka.Kafka', config], { stdio: ['ignore', 'pipe', 'pipe'] });
  const log = createWriteStream(logFile, { flags: 'a' });
  child.stderr.pipe(log, { end: false });
  return new Promise((resolve, reject) => {
    let seen = '';
    child.once('error', reject);
    child.once('exit', code => reject(new Error(`Kafka exited with ${code} while starting; see ${logFile}`)));
    child.stdout.on('data', (chunk: Buffer) => {
      log.write(chunk);
      if (seen.includes('Kafka Server started')) return;
      seen = seen.slice(-200) + chunk.toString('latin1');
      if (!seen.includes('Kafka Server started')) return;
      child.removeAllListeners('exit');
      resolve({
        bootstrap,
        pid: child.pid!,
        logFile,
        stop: () => end(child, 'SIGTERM'),
        kill: () => end(child, 'SIGKILL'),
      });
    });
  });
}

function end(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise(resolve => {
    const lastResort = setTimeout(() => child.kill('SIGKILL'), 30_000);
    child.once('exit', () => {
      clearTimeout(lastResort);
      resolve();
    });
    child.kill(signal);
  });
}
