// The test run: checks, then every *.test.ts on a throwaway embedded PostgreSQL, then those that use a database again
// on another major version. Arguments are parts of file names, and flags for node's test runner. With
// MILLRACE_TEST_POSTGRES=16 the files named run on PostgreSQL 16 instead, the machine's or npm's.
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { kafkaClasspath, kafkaIsMissing } from '../compat/kafka/kafka.ts';
import { EmbeddedPostgres } from '../src/postgres/embedded.ts';
import { type Installation, majorVersion } from '../src/postgres/embedded-binaries.ts';
import { findOtherPostgres, findPostgres } from './other-postgres.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), 'millrace-test-'));
// PostgreSQL may run as another user. Below a closed directory only 16 and newer would (embedded-cluster.ts).
chmodSync(temporary, 0o711);
const concurrency = 2;
/** Of a whole file, too: those that kill things take minutes on a slow disk. */
const testTimeoutMs = 900_000;
/** Whose subject is above PostgreSQL: clients, processes, another cluster. They run on one version. */
const onOneVersion = [
  'test/browser.test.ts',
  'test/captures-http.test.ts',
  'test/demo-metrics.test.ts',
  'test/faults/delivery.test.ts',
  'test/inbox-source.test.ts',
  'test/kafka-mirror-into.test.ts',
  'test/kafka-mirror.test.ts',
  'test/kafka-pipelines.test.ts',
  'test/kafka-source.test.ts',
  'test/kafka-target.test.ts',
  'test/mirror-into.test.ts',
  'test/mirror.test.ts',
  'test/sink-source.test.ts',
  'test/start-failures.test.ts',
];
const nodeSuites = ['kafkajs', 'platformatic'];

// Nothing in a throwaway database must survive a crash of the machine. Commits stay synchronous.
const fastSettings = {
  fsync: 'off',
  full_page_writes: 'off',
  shared_buffers: '128MB',
  min_wal_size: '256MB',
  max_wal_size: '1GB',
  max_connections: '200',
};

const filters = process.argv.slice(2).filter(argument => !argument.startsWith('--'));
const runnerFlags = process.argv.slice(2).filter(argument => argument.startsWith('--'));
const failures: string[] = [];
const skips: string[] = [];
let running: EmbeddedPostgres | undefined;

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, async () => {
    await running?.stop(AbortSignal.abort());
    rmSync(temporary, { recursive: true, force: true });
    process.exit(1);
  });
}

async function main(): Promise<void> {
  const all = findTests();
  const files = all.filter(file => filters.length === 0 || filters.some(filter => file.includes(trimmed(filter))));
  if (files.length === 0) throw new Error(`no test file has ${filters.join(' or ')} in its name`);
  const asked = process.env.MILLRACE_TEST_POSTGRES;
  if (asked !== undefined) {
    const installation = findPostgres(Number(asked), root);
    if (typeof installation === 'string') throw new Error(installation);
    await runOn(
      installation,
      files.filter(file => usesDatabase(file)),
    );
    return report();
  }
  if (filters.length === 0) {
    await check();
    // Before two files ask for it at the same time.
    if (kafkaIsMissing() === false) kafkaClasspath();
  }
  await runOn(undefined, files);
  if (filters.length === 0) {
    const other = findOtherPostgres(root);
    if (typeof other === 'string') skips.push(`the tests on another PostgreSQL: ${other}`);
    else
      await runOn(
        other,
        files.filter(file => !onOneVersion.includes(file) && usesDatabase(file)),
      );
    await runCompat();
  }
  report();
}

async function check(): Promise<void> {
  heading('biome');
  if ((await execute('node_modules/.bin/biome', ['check', '--error-on-warnings', '.'])) !== 0) failures.push('biome');
  heading('tsc');
  if ((await execute('node_modules/.bin/tsc', ['--noEmit'])) !== 0) failures.push('tsc');
}

async function runOn(installation: Installation | undefined, files: readonly string[]): Promise<void> {
  const name = installation ? `PostgreSQL ${installation.version}` : 'the embedded PostgreSQL';
  heading(`${files.length} test files on ${name}`);
  const postgres = new EmbeddedPostgres({
    dataDir: join(temporary, `pg${installation ? majorVersion(installation) : ''}`),
    logger: pino({ level: 'warn' }, pino.destination(2)),
    settings: fastSettings,
    ...(installation ? { installation } : {}),
    onFailure: error => console.error(error.sentence),
  });
  running = postgres;
  const outcomes = join(temporary, 'outcomes');
  try {
    await postgres.start();
    const status = await execute(
      process.execPath,
      [
        ...['--import', 'tsx', '--test', `--test-concurrency=${concurrency}`, `--test-timeout=${testTimeoutMs}`],
        ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
        ...['--test-reporter=./test/outcome-reporter.mjs', `--test-reporter-destination=${outcomes}`],
        ...runnerFlags,
        ...files,
      ],
      { MILLRACE_TEST_DATABASE_URL: postgres.tcpUrl, MILLRACE_TEST_MAIN: 'dist/main.js' },
    );
    if (status !== 0) failures.push(`tests on ${name}`);
    const lines = existsSync(outcomes) ? readFileSync(outcomes, 'utf8').split('\n').filter(Boolean) : [];
    for (const line of lines) {
      const { outcome, test, reason } = JSON.parse(line) as { outcome: string; test: string; reason: string };
      const told = `${test}: ${reason}`;
      if (outcome === 'failed') failures.push(`  ${told}`);
      else if (!skips.includes(told)) skips.push(told);
    }
  } finally {
    await postgres.stop(AbortSignal.abort());
    running = undefined;
  }
}

/** The client suites that need nothing but Node; the others are for .ci/run. */
async function runCompat(): Promise<void> {
  heading(`client suites: ${nodeSuites.join(', ')}`);
  if ((await execute(process.execPath, ['compat/run.mjs', ...nodeSuites])) !== 0) failures.push('client suites');
  const others = readdirSync(join(root, 'compat'), { withFileTypes: true })
    .filter(entry => entry.isDirectory() && !nodeSuites.includes(entry.name))
    .map(entry => entry.name);
  skips.push(`compat/{${others.join(',')}}: these need Java, Go, Python or kcat; npm run compat runs what is here`);
}

function report(): void {
  heading('summary');
  for (const skip of skips) console.log(`skipped  ${skip}`);
  for (const failure of failures) console.log(`failed   ${failure}`);
  if (failures.length === 0) console.log('everything else passed');
}

/** Paths from the root, as node's test runner prints them. */
function findTests(): string[] {
  return ['src', 'test', 'bench']
    .flatMap(directory =>
      readdirSync(join(root, directory), { recursive: true }).map(file => join(directory, String(file))),
    )
    .filter(file => file.endsWith('.test.ts'))
    .sort();
}

/** Whether it imports test/database.ts, itself or through another file of test/. */
function usesDatabase(file: string, visited = new Set<string>()): boolean {
  visited.add(file);
  const source = readFileSync(join(root, file), 'utf8');
  return [...source.matchAll(/from '(\.[^']+\.ts)'/g)].some(([, target]) => {
    const imported = relative(root, resolve(root, dirname(file), target!));
    if (imported === join('test', 'database.ts')) return true;
    return imported.startsWith('test') && !visited.has(imported) && usesDatabase(imported, visited);
  });
}

function execute(command: string, parameters: readonly string[], env: Record<string, string> = {}): Promise<number> {
  return new Promise(resolve => {
    const child = spawn(command, parameters, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
    child.once('error', error => {
      console.error(error.message);
      resolve(1);
    });
    child.once('exit', code => resolve(code ?? 1));
  });
}

const heading = (text: string): void => console.log(`\n— ${text}`);
/** As a shell completes it: ./src/x.test.ts. */
const trimmed = (path: string): string => path.replace(/^\.\//, '');

try {
  await main();
} finally {
  rmSync(temporary, { recursive: true, force: true });
}
process.exit(failures.length === 0 ? 0 : 1);
