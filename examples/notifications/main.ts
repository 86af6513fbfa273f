// npm run demo:notifications: a notification system in one go. Millrace with its own PostgreSQL, three producers, a thousand
// connected users; once a second what happens, and at the end whether anything was lost or came twice.
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Kafka, logLevel } from 'kafkajs';
import { Histogram } from './histogram.ts';
import type { ClientReport } from './notification.ts';
import { startProducers } from './producers.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    rate: { type: 'string', default: '1200' },
    users: { type: 'string', default: '100000' },
    connected: { type: 'string', default: '1000' },
    share: { type: 'string', default: '0.75' },
    json: { type: 'boolean', default: false },
  },
});
const [seconds, rate, users, connected, share] = [
  values.seconds,
  values.rate,
  values.users,
  values.connected,
  values.share,
].map(Number) as [number, number, number, number, number];
const root = fileURLToPath(new URL('../../', import.meta.url));
const topic = 'notifications';
/** How long what has been sent may still be under way at the end, ms. */
const patienceMs = 30_000;

const directory = mkdtempSync(join(tmpdir(), 'millrace-demo-'));
const children: ChildProcess[] = [];
process.once('SIGINT', () => stop(130));
process.once('SIGTERM', () => stop(143));

try {
  await stop(await run());
} catch (error) {
  console.error(error);
  await stop(1);
}

async function run(): Promise<number> {
  const [kafkaPort, httpPort] = [await freePort(), await freePort()];
  const config = join(directory, 'millrace.yaml');
  writeFileSync(
    config,
    `deliver:\n  notifications:\n    topics: [${topic}]\n    subscriber: $.user_id\n    id: $.event_id\n    type: $.event_type\n    priority: $.priority\n`,
  );
  console.log(`Starting Millrace with a PostgreSQL of its own in ${directory} …`);
  await startMillrace(config, kafkaPort, httpPort);
  const broker = `127.0.0.1:${kafkaPort}`;
  const admin = new Kafka({ brokers: [broker], logLevel: logLevel.ERROR }).admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 6 }] });
  await admin.disconnect();

  console.log(`Connecting ${connected} of ${users} users …`);
  const clients = fork(
    fileURLToPath(new URL('clients.ts', import.meta.url)),
    [`http://127.0.0.1:${httpPort}`, `${connected}`],
    {
      execArgv: ['--import', 'tsx'],
    },
  );
  children.push(clients);
  const total = { events: 0, duplicates: 0, lost: 0, reconnects: 0, latencies: new Histogram() };
  let report: ClientReport | undefined;
  const reported = () => once(clients, 'message');
  clients.on('message', (message: ClientReport) => {
    report = message;
    total.events += message.events;
    total.duplicates += message.duplicates;
    total.lost += message.lost;
    total.reconnects += message.reconnects;
    total.latencies.merge(new Histogram(message.latencies));
  });
  await reported();

  const producers = await startProducers({
    broker,
    topic,
    eventsPerSecond: rate,
    users,
    connected,
    connectedShare: share,
  });
  console.log(`Three producers send ${rate} events/s, ${Math.round(share * 100)} % of them to connected users.\n`);
  console.log('  s | sent/s | delivered/s | p50 ms | p95 ms | p99 ms | streams | twice | lost');
  let before = 0;
  for (let second = 1; second <= seconds; second++) {
    await reported();
    const { all } = producers.sent;
    const { events, latencies, connections } = report!;
    const [p50, p95, p99] = quantiles(new Histogram(latencies));
    console.log(
      [second, all - before, events, p50, p95, p99, connections, total.duplicates, total.lost]
        .map((cell, i) => String(cell).padStart([3, 6, 11, 6, 6, 6, 7, 5, 4][i]!))
        .join(' | '),
    );
    before = all;
  }
  await producers.stop();
  const deadline = Date.now() + patienceMs;
  while (total.events < producers.sent.connected && Date.now() < deadline) await reported();
  const missing = producers.sent.connected - total.events;
  const [p50, p95, p99] = quantiles(total.latencies);
  const perSecond = Math.round(total.events / seconds);
  console.log(`
sent       ${producers.sent.all} events in ${seconds} s, ${producers.sent.connected} of them to connected users
delivered  ${total.events}, ${perSecond}/s; event to client p50 ${p50} ms, p95 ${p95} ms, p99 ${p99} ms
lost ${missing}, twice ${total.duplicates}; the others wait in the inbox for their users`);
  if (values.json)
    console.log(JSON.stringify({ rate, connected, perSecond, p50, p95, p99, missing, ...total, latencies: undefined }));
  return missing === 0 && total.duplicates === 0 ? 0 : 1;
}

function quantiles(latencies: Histogram): string[] {
  return [0.5, 0.95, 0.99].map(share => latencies.quantile(share).toFixed(1));
}

async function startMillrace(config: string, kafkaPort: number, httpPort: number): Promise<void> {
  const flags = [
    `--config=${config}`,
    `--data-dir=${join(directory, 'data')}`,
    `--kafka=127.0.0.1:${kafkaPort}`,
    `--http=127.0.0.1:${httpPort}`,
    '--log-level=warn',
  ];
  const millrace = spawn(process.execPath, ['--import', 'tsx', 'src/main.ts', ...flags], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(millrace);
  let said = '';
  for await (const chunk of millrace.stdout) {
    said += chunk;
    if (said.includes('Ctrl-C stops it')) break;
  }
  if (millrace.exitCode !== null) throw new Error('Millrace did not start');
}

async function stop(code: number): Promise<never> {
  for (const child of children.reverse()) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
  rmSync(directory, { recursive: true, force: true });
  process.exit(code);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
