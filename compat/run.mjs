// npm run compat -- [suite…] [--bootstrap HOST:PORT [--database-url URL]] [--kafka]
// Runs foreign clients against a broker: by default a Millrace of its own with temporary data, with --bootstrap one that
// runs already, with --kafka Apache Kafka, on which the suites themselves are proven. Without names, all suites. A suite
// whose toolchain is missing is skipped, and so is a failure listed with a reason in ./allowlist.
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { cache, go, java, kcat, lines, python, root, script } from './toolchains.mjs';

const suites = {
  kcat: () => ({ ...script('kcat/suite.ts'), ...kcat() }),
  kafkajs: () => script('kafkajs/suite.ts'),
  platformatic: () => script('platformatic/suite.ts'),
  python,
  'franz-go': go,
  java,
  lines: prepareLines,
  debezium: () => script('debezium/suite.ts'),
};

function prepareLines(target) {
  const { missing, file } = { ...kcat(), ...lines() };
  if (missing) return { missing };
  const env = { COMPAT_LINES: file, COMPAT_JAVA_OPTIONS: JSON.stringify(java().options ?? null) };
  if (target.databaseUrl) env.COMPAT_DATABASE_URL = target.databaseUrl;
  return { ...script('lines/suite.ts'), env };
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { bootstrap: { type: 'string' }, 'database-url': { type: 'string' }, kafka: { type: 'boolean' } },
});
for (const name of positionals) {
  if (!suites[name]) fail(`there is no suite ${name}; there are ${Object.keys(suites).join(', ')}`);
}

const allowlist = readAllowlist();
const totals = { passed: 0, failed: 0, skipped: 0 };
const target = await startTarget();
process.once('SIGINT', () => target.stop().then(() => process.exit(130)));
try {
  for (const name of positionals.length > 0 ? positionals : Object.keys(suites)) await runSuite(name);
} finally {
  await target.stop();
}
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(totals.failed > 0 ? 1 : 0);

async function runSuite(name) {
  const startedAt = Date.now();
  const { missing, command, args, env } = suites[name](target);
  if (missing) {
    totals.skipped += 1;
    console.log(`${name}: skipped, ${missing}\n`);
    return;
  }
  console.log(`${name}:`);
  const child = spawn(command, [...args, target.bootstrap], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let planned;
  let seen = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    const [, plan] = /^1\.\.(\d+)$/.exec(line) ?? [];
    if (plan !== undefined) planned = Number(plan);
    else if (report(name, line)) seen += 1;
  }
  if (seen !== planned) {
    totals.failed += 1;
    console.log(`  not ok ${name}: ended after ${seen} of ${planned ?? 'an unknown number of'} checks`);
  }
  console.log(`  ${Math.round((Date.now() - startedAt) / 1000)} s\n`);
}

/** Counts one line of a suite's output; false when it is not about a check. */
function report(suite, line) {
  const [, outcome, rest] = /^(ok|not ok|skip) (.*)$/.exec(line) ?? [];
  if (outcome === undefined) {
    console.log(`  ${line}`);
    return false;
  }
  // A check's own name may hold a colon: the longest listed name that begins the line is meant.
  const known = allowlist.filter(entry => entry.suite === suite && rest.startsWith(entry.check)).at(-1);
  if (outcome === 'not ok' && known) {
    totals.skipped += 1;
    console.log(`  skip ${rest} (known: ${known.reason})`);
  } else if (outcome === 'ok' && known && rest === known.check) {
    totals.failed += 1;
    console.log(`  not ok ${rest}: passes, so it must leave compat/allowlist`);
  } else {
    totals[{ ok: 'passed', 'not ok': 'failed', skip: 'skipped' }[outcome]] += 1;
    console.log(`  ${outcome} ${rest}`);
  }
  return true;
}

function readAllowlist() {
  const entries = [];
  for (const line of readFileSync(new URL('allowlist', import.meta.url), 'utf8').split('\n')) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const [, suite, check, reason] = /^([\w-]+): (.+?) # (.+)$/.exec(line) ?? [];
    if (reason === undefined) fail(`compat/allowlist has a line without suite, check and reason: ${line}`);
    entries.push({ suite, check, reason });
  }
  return entries.sort((a, b) => a.check.length - b.check.length);
}

async function startTarget() {
  if (values.bootstrap) {
    return { bootstrap: values.bootstrap, databaseUrl: values['database-url'], stop: async () => {} };
  }
  return values.kafka ? startKafka() : startMillrace();
}

async function startKafka() {
  const { command, args } = script('kafka/main.ts');
  const { text, stop } = await startProgram(command, args, 'compat-kafka.log', /^ready (\S+)$/m);
  return { bootstrap: text[1], stop };
}

async function startMillrace() {
  const dataDir = mkdtempSync(join(tmpdir(), 'millrace-compat-'));
  const anyPort = '127.0.0.1:0';
  const flags = ['--kafka', anyPort, '--http', anyPort, '--data-dir', dataDir, '--log-level', 'warn'];
  const started = await startProgram(
    process.execPath,
    [join(root, 'scripts/start.mjs'), ...flags],
    'compat-millrace.log',
    /Kafka +(\S+)\n +HTTP +(\S+)[\s\S]+?(postgres:[^\s,]+),\s+password in (.+)\)\n[\s\S]+stops it/,
  );
  const [, bootstrap, http, databaseUrl, passwordFile] = started.text;
  const ready = await fetch(new URL('readyz', http));
  if (!ready.ok) fail(`${ready.url} answers ${ready.status}`);
  const password = encodeURIComponent(readFileSync(passwordFile, 'utf8').trim());
  return {
    bootstrap,
    databaseUrl: databaseUrl.replace('@', `:${password}@`),
    stop: async () => {
      await started.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** Starts a server and waits until what it prints matches; its output goes to a file in .cache/. */
function startProgram(command, args, logName, ready) {
  mkdirSync(cache, { recursive: true });
  const logFile = join(cache, logName);
  const log = createWriteStream(logFile);
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise(resolve => child.once('exit', resolve));
  child.stderr.pipe(log, { end: false });
  const stop = () => {
    child.kill('SIGTERM');
    return ended;
  };
  return new Promise((resolve, reject) => {
    let seen = '';
    ended.then(code => reject(new Error(`${args.at(-1)} ended with ${code} while starting; see ${logFile}`)));
    child.once('error', reject);
    child.stdout.on('data', chunk => {
      log.write(chunk);
      if (seen === null) return;
      seen += chunk;
      const text = ready.exec(seen);
      if (!text) return;
      seen = null;
      resolve({ text, stop });
    });
  });
}

function fail(sentence) {
  process.stderr.write(`compat: ${sentence}\n`);
  process.exit(2);
}
