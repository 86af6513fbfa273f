// Kafka's own performance tools. A JVM runs at a fraction of its speed for the first seconds, so the tools' own warm-up
// is used: what they sent before the warm-up's end is not in the figures they print at the end.
import { spawn } from 'node:child_process';
import { kafkaClasspath } from '../../compat/kafka/kafka.ts';
import { endedChildrenCpuSeconds } from '../processes.ts';
import type { Scenario } from '../scenario.ts';
import { payloadFile } from './payloads.ts';

const MB = 1e6;
/** Sent before the clock starts: some ten seconds' worth. */
const warmupBytes = { small: 300 * MB, large: 600 * MB };
/** For each second that a scenario produces. */
const measuredBytes = { small: 60 * MB, large: 160 * MB };

const logging = new URL('../../compat/kafka/log4j2.properties', import.meta.url).href;

export interface JavaProduced {
  readonly records: number;
  /** All records, those of the warm-up included: what CPU time was spent on. */
  readonly sent: number;
  readonly recordsPerSecond: number;
  readonly ack: Record<'p50' | 'p95' | 'p99' | 'p999', number>;
  readonly cpu_s: number;
}

export interface JavaConsumed {
  readonly records: number;
  readonly recordsPerSecond: number;
  readonly cpu_s: number;
}

async function run(tool: string, args: readonly string[]): Promise<{ out: string; cpu_s: number }> {
  const cpu = endedChildrenCpuSeconds();
  const java = ['-Xmx1g', `-Dlog4j2.configurationFile=${logging}`, '-cp', kafkaClasspath()];
  const child = spawn('java', [...java, `org.apache.kafka.tools.${tool}`, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  child.stdout.on('data', chunk => {
    out += chunk;
  });
  child.stderr.on('data', chunk => {
    err += chunk;
  });
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve));
  if (code !== 0) throw new Error(`${tool} ${args.join(' ')}: exit ${code}: ${err || out}`);
  return { out, cpu_s: endedChildrenCpuSeconds() - cpu };
}

export async function produceWithJava(bootstrap: string, topic: string, scenario: Scenario): Promise<JavaProduced> {
  const kind = scenario.recordBytes < 512 ? 'small' : 'large';
  const throttled = scenario.rate > 0;
  const warmup = throttled ? scenario.rate * 10 : Math.round(warmupBytes[kind] / scenario.recordBytes);
  const perSecond = throttled ? scenario.rate : measuredBytes[kind] / scenario.recordBytes;
  const records = Math.round(perSecond * scenario.seconds);
  const properties = [
    'acks=all',
    `compression.type=${scenario.codec}`,
    `linger.ms=${scenario.lingerMs}`,
    ...(scenario.batchBytes ? [`batch.size=${scenario.batchBytes}`] : []),
  ];
  const { out, cpu_s } = await run('ProducerPerformance', [
    ...['--bootstrap-server', bootstrap, '--topic', topic, '--throughput', String(throttled ? scenario.rate : -1)],
    ...['--num-records', String(records + warmup), '--warmup-records', String(warmup)],
    ...['--payload-file', payloadFile(scenario.recordBytes), '--command-property', ...properties],
  ]);
  const line = out.trim().split('\n').at(-1)!;
  const found =
    /^(\d+) steady state records sent, ([\d.]+) records\/sec .* ([\d.]+) ms 50th, ([\d.]+) ms 95th, ([\d.]+) ms 99th, ([\d.]+) ms 99\.9th/.exec(
      line,
    );
  if (!found) throw new Error(`ProducerPerformance said: ${out}`);
  const [sent, rate, p50, p95, p99, p999] = found.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return { records: sent, sent: records + warmup, recordsPerSecond: rate, ack: { p50, p95, p99, p999 }, cpu_s };
}

export async function consumeWithJava(bootstrap: string, topic: string, records: number): Promise<JavaConsumed> {
  const { out, cpu_s } = await run('ConsumerPerformance', [
    ...['--bootstrap-server', bootstrap, '--topic', topic, '--num-records', String(records), '--hide-header'],
  ]);
  // start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, fetch MB/s, fetch records/s: the last leaves out
  // the time in which the group forms.
  const fields = out.trim().split('\n').at(-1)!.split(', ');
  const consumed = Number(fields[4]);
  const rate = Number(fields[9]);
  if (!(consumed > 0 && rate > 0)) throw new Error(`ConsumerPerformance said: ${out}`);
  return { records: consumed, recordsPerSecond: rate, cpu_s };
}
