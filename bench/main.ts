// npm run bench -- <scenario…> [--peers a,b] [--json FILE] [--rounds N] [--short]: measures Millrace beside what its
// users would take instead, on this machine, in one run. bench/README.md says what each scenario and system is.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { capturePeers, measureCapture, writeCaptureConfiguration } from './capture/run.ts';
import { captureScenarios, findCaptureScenarios } from './capture/scenarios.ts';
import { buildLibrdkafkaClient, librdkafkaVersion } from './clients/librdkafka.ts';
import { deliverySettings } from './delivery/millrace-notifier.ts';
import { deliveryPeers, measureDelivery } from './delivery/run.ts';
import { deliveryScenarios, findDeliveryScenarios } from './delivery/scenarios.ts';
import { growthSettings, measureGrowth } from './growth.ts';
import { describeMachine } from './machine.ts';
import { measureMemory } from './memory.ts';
import type { Result } from './metrics.ts';
import { measureMirrors, mirrorPeers } from './mirror/run.ts';
import { findMirrorScenarios, mirrorScenarios } from './mirror/scenarios.ts';
import { Copy } from './peers/copy.ts';
import { Kafka } from './peers/kafka.ts';
import { Millrace } from './peers/millrace.ts';
import { Rows } from './peers/rows.ts';
import type { System } from './peers/system.ts';
import { signalAll, treeOf } from './processes.ts';
import { checkOut, compare, describe, lastRelease, removeWorktree } from './regression.ts';
import { writeGrowthPlots, writeMemoryPlot, writeReport } from './report.ts';
import { alone, runScenarios } from './run.ts';
import { findScenarios, groups } from './scenario.ts';
import { measureSinks, sinkPeers } from './sink/run.ts';
import { findSinkScenarios, sinkScenarios } from './sink/scenarios.ts';

const usage = `npm run bench -- <scenario…> [flags]

Scenarios: ${Object.keys(groups).join(', ')}, memory, growth, capture, sink, delivery, mirror; or a scenario's name, or how names begin (--list).

  --peers a,b           systems beside Millrace: rows, copy, kafka, kafka-flush (default: rows,copy), or for
                        capture ${capturePeers.join(', ')}, for sink ${sinkPeers.join(', ')}, for delivery ${deliveryPeers.join(', ')},
                        for mirror ${mirrorPeers.join(', ')}; or none
  --rounds N            rounds, the first of which is thrown away but for capture (default 6)
  --short               2 rounds of 3 s: to see a change, not to publish
  --seconds N           how long a round produces
  --report NAME         also bench/results/NAME.md with plots
  --json FILE           results to FILE, machine, versions and settings to FILE.meta.json
  --sink KEY=VALUE      a setting of the sink that is measured, tasks=3; any number of them
  --set KEY=VALUE       a setting of Millrace, e.g. tail.cache.bytes=64MiB; any number of them
  --bootstrap HOST:PORT --database-url URL
                        measure a Millrace that runs already
  --dir DIR             where data directories are made (default: the temporary directory)
  --minutes N           how long memory runs (default 10)
  --records N           how many growth produces, or changes capture's backlogs have (default 3000000), or records
                        a sink drains (default 600000), or a mirror copies (default: the scenario's)
  --rows N              of capture's large transaction (default 10000000)
  --warmup N            how many seconds of changes come before capture's lag is measured (default 30), or a
                        pipeline (default 10), or a mirror's lag (default 20)
  --snapshot-minutes N  how long growth and deliver-snapshot hold a snapshot (default 1)
  --against REF         the commit that regression compares with (default: the last release, where there is one)
  --list                the scenarios' names
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    peers: { type: 'string', default: 'rows,copy' },
    rounds: { type: 'string' },
    short: { type: 'boolean', default: false },
    seconds: { type: 'string' },
    json: { type: 'string' },
    set: { type: 'string', multiple: true, default: [] },
    sink: { type: 'string', multiple: true, default: [] },
    bootstrap: { type: 'string' },
    'database-url': { type: 'string' },
    report: { type: 'string' },
    minutes: { type: 'string', default: '10' },
    records: { type: 'string' },
    rows: { type: 'string' },
    warmup: { type: 'string' },
    'snapshot-minutes': { type: 'string', default: '1' },
    against: { type: 'string' },
    dir: { type: 'string', default: tmpdir() },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

if (values.list) {
  const others = [...captureScenarios, ...sinkScenarios, ...deliveryScenarios, ...mirrorScenarios];
  for (const { name } of new Set([...Object.values(groups).flat(), ...others])) console.log(name);
  process.exit(0);
}
if (values.help || positionals.length === 0) {
  process.stdout.write(usage);
  process.exit(values.help ? 0 : 2);
}

const isRegression = positionals.includes('regression');
const against = isRegression ? (values.against ?? lastRelease()) : undefined;
if (isRegression && against === undefined) {
  process.stderr.write('There is no release to compare with: name a commit with --against.\n');
  process.exit(2);
}
const seconds = values.seconds ? Number(values.seconds) : values.short || isRegression ? 3 : undefined;
const wantsMemory = positionals.includes('memory');
const wantsGrowth = positionals.includes('growth');
const capturing = findCaptureScenarios(positionals);
const sinking = findSinkScenarios(positionals);
const delivering = findDeliveryScenarios(positionals);
const mirroring = findMirrorScenarios(positionals);
const isElsewhere = (word: string): boolean =>
  ['memory', 'growth'].includes(word) ||
  [findCaptureScenarios, findSinkScenarios, findDeliveryScenarios, findMirrorScenarios].some(
    find => find([word]).length > 0,
  );
const scenarios = findScenarios(positionals.filter(word => !isElsewhere(word))).map(scenario =>
  seconds ? { ...scenario, seconds } : scenario,
);
const peerNames = values.peers.split(',').filter(peer => peer && peer !== 'none');
const rounds = values.rounds ? Number(values.rounds) : values.short ? 2 : isRegression ? 4 : 6;
const isFirstThrownAway = scenarios.length > 0 || mirroring.length > 0 || sinking.some(({ work }) => work === 'drain');
const log = (line: string): void => console.log(line);
buildLibrdkafkaClient();

const directory = mkdtempSync(join(values.dir, 'millrace-bench-'));
chmodSync(directory, 0o711); // as root, PostgreSQL runs as another user and must pass through
const millrace = makeMillrace();
const systems: System[] = [];
let before: string | undefined;
let stopping: Promise<void> | undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void stop().finally(() => process.exit(130)));
}

try {
  const machine = describeMachine();
  const absent = await start();
  if (absent.before) throw new Error(`${against} does not start here: ${absent.before}`);
  const results = await runScenarios({ scenarios, systems, rounds, log });
  if (wantsGrowth) results.push(...(await alone(millrace, systems, 'produce', runGrowth)));
  const captured = capturing.length > 0 ? await runCapture() : undefined;
  if (captured) results.push(...captured.results);
  const delivered = delivering.length > 0 ? await runDelivery() : undefined;
  if (delivered) results.push(...delivered.results);
  const sunk = sinking.length > 0 ? await runSinks() : undefined;
  if (sunk) results.push(...sunk.results);
  const mirrored = mirroring.length > 0 ? await runMirrors() : undefined;
  if (mirrored) results.push(...mirrored.results);
  if (wantsMemory) results.push(...(await alone(millrace, systems, 'produce', runMemory)));
  const settings = Object.fromEntries(
    await Promise.all(systems.map(async system => [system.name, await system.describe()] as const)),
  );
  const meta = {
    command: `npm run bench -- ${process.argv.slice(2).join(' ')}`,
    ...machine,
    librdkafka: await librdkafkaVersion(),
    rounds,
    kept: isFirstThrownAway ? rounds - 1 : rounds,
    systems: {
      ...Object.fromEntries(systems.map(({ name, description }) => [name, description])),
      ...captured?.systems,
      ...delivered?.systems,
      ...sunk?.systems,
      ...mirrored?.systems,
    },
    absent: { ...absent, ...captured?.absent, ...delivered?.absent, ...sunk?.absent, ...mirrored?.absent },
    settings: {
      ...settings,
      ...captured?.settings,
      ...delivered?.settings,
      ...sunk?.settings,
      ...mirrored?.settings,
    },
  };
  if (values.json) {
    writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`);
    writeFileSync(`${values.json}.meta.json`, `${JSON.stringify(meta, null, 1)}\n`);
  }
  if (isRegression) {
    const comparisons = compare(results);
    log(describe(comparisons));
    if (comparisons.some(({ verdict }) => verdict === 'slower')) process.exitCode = 1;
  }
  if (values.report) log(writeReport(results, meta, values.report));
} finally {
  await stop();
}

/** Starts what can be started; the reason why a peer cannot, by its name. */
async function start(): Promise<Record<string, string>> {
  const absent: Record<string, string> = {};
  await millrace.start();
  systems.push(millrace);
  for (const system of choosePeers()) {
    try {
      await system.start();
      systems.push(system);
    } catch (error) {
      absent[system.name] = error instanceof Error ? error.message : String(error);
      log(`without ${system.name}: ${absent[system.name]}`);
    }
  }
  return absent;
}

async function runGrowth(): Promise<Result[]> {
  const options = { records: Number(values.records ?? 3e6), snapshotMinutes: Number(values['snapshot-minutes']), log };
  const growth = await measureGrowth(millrace, options);
  if (values.report) writeGrowthPlots(growth, values.report);
  return growth.results;
}

function runCapture() {
  const sizes = {
    changes: Number(values.records ?? (values.short ? 600_000 : 3e6)),
    transactionRows: Number(values.rows ?? (values.short ? 1e6 : 1e7)),
    seconds: seconds ?? 10,
    warmupSeconds: Number(values.warmup ?? (values.short ? 5 : 30)),
  };
  return measureCapture({ millrace, directory, scenarios: capturing, sizes, peers: peerNames, rounds, log });
}

function runDelivery() {
  const sizes = { seconds: seconds ?? 20, snapshotMinutes: Number(values['snapshot-minutes']) };
  return measureDelivery({ millrace, scenarios: delivering, ...sizes, peers: peerNames, rounds, log });
}

function runSinks() {
  const sizes = {
    records: Number(values.records ?? (values.short ? 120_000 : 600_000)),
    seconds: seconds ?? 60,
    warmupSeconds: Number(values.warmup ?? (values.short ? 3 : 10)),
  };
  const sinkSettings = Object.fromEntries(
    values.sink.map(pair => pair.split('=')).map(([key, value]) => [key, Number(value)]),
  );
  return measureSinks({ millrace, directory, scenarios: sinking, sizes, peers: peerNames, sinkSettings, rounds, log });
}

function runMirrors() {
  const sizes = {
    records: values.records === undefined ? undefined : Number(values.records),
    seconds: seconds ?? 20,
    warmupSeconds: Number(values.warmup ?? (values.short ? 3 : 20)),
  };
  return measureMirrors({ millrace, directory, scenarios: mirroring, sizes, peers: peerNames, rounds, log });
}

async function runMemory(): Promise<Result[]> {
  const { samples, results } = await measureMemory(millrace, Number(values.minutes), log);
  if (values.report) writeMemoryPlot(samples, values.report);
  return results;
}

function makeMillrace(): Millrace {
  const { bootstrap, 'database-url': databaseUrl } = values;
  if ((bootstrap === undefined) !== (databaseUrl === undefined)) throw new Error('--bootstrap needs --database-url');
  return new Millrace({
    directory,
    settings: [
      ...(wantsGrowth ? growthSettings : []),
      ...(delivering.length > 0 ? deliverySettings : []),
      ...values.set,
    ],
    config: capturing.length > 0 ? writeCaptureConfiguration(directory) : undefined,
    ...(bootstrap && databaseUrl ? { running: { bootstrap, databaseUrl } } : {}),
  });
}

function makeBefore(ref: string): System {
  before = checkOut(ref, directory);
  return new Millrace({
    directory,
    settings: values.set,
    tree: { path: before, name: 'before', description: `Millrace at ${ref}` },
  });
}

function choosePeers(): System[] {
  const peers: Record<string, () => System> = {
    rows: () => new Rows(millrace),
    copy: () => new Copy(millrace),
    kafka: () => new Kafka(directory, { flush: false }),
    'kafka-flush': () => new Kafka(directory, { flush: true }),
  };
  if (against) return [makeBefore(against)];
  if (scenarios.length === 0) return [];
  const elsewhere = [...capturePeers, ...sinkPeers, ...deliveryPeers, ...mirrorPeers];
  const names = peerNames.filter(peer => peers[peer] || !elsewhere.includes(peer));
  return names.map(name => {
    const make = peers[name];
    if (!make) throw new Error(`no system ${name}; there are ${Object.keys(peers).join(', ')}`);
    return make();
  });
}

function stop(): Promise<void> {
  stopping ??= (async () => {
    // Interrupted while one is measured, the others are stopped and would not hear of their end.
    signalAll(treeOf(systems.flatMap(system => system.processes())), 'SIGCONT');
    for (const system of [...systems].reverse()) await system.stop();
    await millrace.stop();
    if (before) removeWorktree(before);
    rmSync(directory, { recursive: true, force: true });
  })();
  return stopping;
}
