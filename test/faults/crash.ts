// The long form of the crash loop: npm run crash -- [--rounds 50] [--seed N]. A seed repeats the choices of victims and
// batch sizes; when exactly things are killed is the machine's. Where .cache/python has confluent-kafka (made by
// `npm run compat -- python`), librdkafka writes as well.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { runCrashRounds } from './crash-rounds.ts';
import type { Load, Task } from './load.ts';
import { newSeed } from './random.ts';

const python = fileURLToPath(new URL('../../.cache/python/bin/python', import.meta.url));
const script = fileURLToPath(new URL('librdkafka_writer.py', import.meta.url));

function librdkafkaWriter(load: Load): Task {
  const { port, topic, partitions, acknowledged } = load;
  const child = spawn(python, [script, `127.0.0.1:${port}`, topic, String(partitions), 'librdkafka'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  createInterface(child.stdout).on('line', line => {
    const [partition, offset, id] = line.split(' ') as [string, string, string];
    acknowledged.add({ partition: Number(partition), offset: BigInt(offset), id });
  });
  const done = once(child, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`the librdkafka writer ended with code ${code}`);
  });
  return { done, stop: () => child.stdin.end(), abandon: () => child.kill('SIGKILL') };
}

const { values } = parseArgs({ options: { rounds: { type: 'string' }, seed: { type: 'string' } } });
const rounds = Number(values.rounds ?? process.env.MILLRACE_CRASH_ROUNDS ?? 50);
const seed = Number(values.seed ?? newSeed());
const writers = existsSync(python) ? [librdkafkaWriter] : [];
console.log(`${rounds} rounds, seed ${seed}, librdkafka ${writers.length > 0 ? 'too' : 'not here'}`);
try {
  await runCrashRounds({ rounds, seed, say: line => console.log(line), writers });
} catch (error) {
  console.error(error);
  process.exit(1);
}
