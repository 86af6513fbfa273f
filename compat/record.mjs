// node compat/record.mjs [suite…] writes test/fixtures/frames/SUITE.json: requests that real clients sent to a real Apache
// Kafka, with its answers, taken by a proxy while the suites run. Frames are hexadecimal, without their four length bytes;
// of each API version the few first of different lengths are kept.
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { root, script } from './toolchains.mjs';

const maxRequestBytes = 2000;
const maxResponseBytes = 3000;
const samplesOfVersion = 4;
const suites =
  process.argv.length > 2 ? process.argv.slice(2) : ['kcat', 'kafkajs', 'platformatic', 'python', 'franz-go', 'java'];
const output = join(root, 'test/fixtures/frames');
const apiNames = new Map(
  readdirSync(join(root, 'src/protocol/messages'))
    .map(name => /^(\d+)-[a-z-]+(?=\.ts$)/.exec(name))
    .filter(found => found)
    .map(found => [Number(found[1]), found[0]]),
);

/** Of the suite that runs now: by API and version, then by the request's length. */
let samples = new Map();

/** Calls back with each whole frame of a stream of chunks. */
function frames(onFrame) {
  let rest = Buffer.alloc(0);
  return chunk => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE()) {
      const end = 4 + rest.readInt32BE();
      onFrame(rest.subarray(4, end));
      rest = rest.subarray(end);
    }
  };
}

function record(request, awaited) {
  const [key, version, correlationId] = [request.readInt16BE(), request.readInt16BE(2), request.readInt32BE(4)];
  const id = key * 1000 + version;
  if (!samples.has(id)) samples.set(id, new Map());
  const kept = samples.get(id);
  if (request.length > maxRequestBytes || kept.size >= samplesOfVersion || kept.has(request.length)) return;
  const sample = { api: apiNames.get(key) ?? String(key), version, request: request.toString('hex') };
  kept.set(request.length, sample);
  awaited.set(correlationId, sample);
}

function answer(response, awaited) {
  const correlationId = response.readInt32BE();
  const sample = awaited.get(correlationId);
  awaited.delete(correlationId);
  if (sample && response.length <= maxResponseBytes) sample.response = response.toString('hex');
}

const proxy = createServer(client => {
  const broker = connect(kafkaPort, '127.0.0.1');
  const awaited = new Map();
  client.on(
    'data',
    frames(request => record(request, awaited)),
  );
  broker.on(
    'data',
    frames(response => answer(response, awaited)),
  );
  client.pipe(broker).pipe(client);
  for (const [one, other] of [
    [client, broker],
    [broker, client],
  ]) {
    one.on('error', () => other.destroy());
    one.on('close', () => other.destroy());
  }
});
await new Promise(resolve => proxy.listen(0, '127.0.0.1', resolve));
const { port } = proxy.address();

const { command, args } = script('kafka/main.ts', '--advertised-port', String(port));
const kafka = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
let kafkaPort;
for await (const line of createInterface({ input: kafka.stdout })) {
  kafkaPort = Number(/^ready \S+:(\d+)$/.exec(line)?.[1]);
  if (kafkaPort) break;
}
if (!kafkaPort) throw new Error('Apache Kafka did not start');

mkdirSync(output, { recursive: true });
for (const suite of suites) {
  samples = new Map();
  const run = spawn(process.execPath, [join(root, 'compat/run.mjs'), suite, '--bootstrap', `127.0.0.1:${port}`], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const status = await new Promise(resolve => run.once('exit', resolve));
  if (status !== 0) throw new Error(`the suite ${suite} failed: its frames are not written`);
  const kept = [...samples.entries()].sort(([a], [b]) => a - b).flatMap(([, of]) => [...of.values()]);
  if (kept.length === 0) continue;
  writeFileSync(
    join(output, `${suite}.json`),
    `[\n${kept.map(sample => `  ${JSON.stringify(sample)}`).join(',\n')}\n]\n`,
  );
}
kafka.kill('SIGTERM');
proxy.close();
