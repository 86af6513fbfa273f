// The C client on librdkafka.
import { build } from './build.ts';
import { type Arguments, nameValue, runProgram } from './program.ts';

const debianPackage = { name: 'librdkafka-dev', missing: /librdkafka\/rdkafka\.h|lrdkafka/ };
let binary: string | undefined;

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
  /** Where consumers read a copy. */
  readonly lag?: LatencyPercentiles;
}

/** Once, before it is run. */
export function buildLibrdkafkaClient(): void {
  binary = build({ name: 'librdkafka', libraries: ['rdkafka', 'pthread'], debianPackage });
}

export const librdkafka = <T>(mode: string, values: Arguments): Promise<T> =>
  runProgram<T>(binary!, [mode, ...nameValue(values)]);

export const librdkafkaVersion = async (): Promise<string> =>
  (await librdkafka<{ version: string }>('version', {})).version;

/** Drops a directory's files from the page cache; what is not on disk yet is written first. */
export const evict = (directory: string): Promise<object> => librdkafka('evict', { dir: directory });
