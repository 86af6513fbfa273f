// The C client on librdkafka: built once with the machine's own compiler, then run as a process of its own, so that
// it shares nothing with the systems but the CPUs.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Arguments, nameValue, runProgram } from './program.ts';

const source = fileURLToPath(new URL('./librdkafka.c', import.meta.url));
const binary = fileURLToPath(new URL('../../.cache/bench/librdkafka', import.meta.url));

export interface Produced {
  readonly records: number;
  readonly failed: number;
  readonly failure: string;
  readonly seconds: number;
  readonly batch_bytes: number;
  readonly cpu_s: number;
}

export interface Consumed {
  readonly records: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly first_s: number;
  readonly cpu_s: number;
}

export interface Tailed extends Produced {
  readonly consumed: number;
  readonly consumed_seconds: number;
}

interface LatencyPercentiles {
  readonly count: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export interface Latencies {
  readonly records: number;
  readonly received: number;
  readonly unacknowledged: number;
  readonly failed: number;
  readonly sender_late_max_ms: number;
  readonly cpu_s: number;
  readonly ack: LatencyPercentiles;
  readonly end_to_end: LatencyPercentiles;
}

/** Builds the client where that has not been done; as root it may install what it needs. */
export function buildLibrdkafkaClient(): void {
  if (existsSync(binary) && statSync(binary).mtimeMs > statSync(source).mtimeMs) return;
  mkdirSync(dirname(binary), { recursive: true });
  let built = compile();
  if (built.status !== 0 && process.getuid?.() === 0 && /librdkafka\/rdkafka\.h|lrdkafka/.test(built.stderr)) {
    process.stderr.write('installing librdkafka-dev with apt-get\n');
    spawnSync('apt-get', ['install', '-y', '-q', 'librdkafka-dev'], { stdio: ['ignore', 2, 2] });
    built = compile();
  }
  if (built.status === 0) return;
  const why = built.error?.message ?? built.stderr;
  throw new Error(`the librdkafka client cannot be built (a C compiler and librdkafka-dev are needed): ${why}`);
}

function compile() {
  const flags = ['-O2', '-Wall', '-o', binary, source, '-lrdkafka', '-lpthread'];
  return spawnSync('cc', flags, { encoding: 'utf8' });
}

export const librdkafka = <T>(mode: string, values: Arguments): Promise<T> =>
  runProgram<T>(binary, [mode, ...nameValue(values)]);

export const librdkafkaVersion = async (): Promise<string> =>
  (await librdkafka<{ version: string }>('version', {})).version;

/** Drops a directory's files from the page cache; what is not on disk yet is written first. */
export const evict = (directory: string): Promise<object> => librdkafka('evict', { dir: directory });
