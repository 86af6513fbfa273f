import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readSettings, type Sources } from './config.ts';
import { OperationalError } from './errors.ts';
import { flagOf, settingNames, settingOf, variableOf } from './settings.ts';

const cwd = mkdtempSync(join(tmpdir(), 'millrace-config-'));
const file = join(cwd, 'millrace.yaml');
after(() => rmSync(cwd, { recursive: true }));

const read = (argv: readonly string[] = [], env: Sources['env'] = {}) => readSettings({ argv, env, cwd });

/** Reads settings with millrace.yaml in place. */
async function readWith(yaml: string, argv: readonly string[] = [], env: Sources['env'] = {}) {
  writeFileSync(file, yaml);
  try {
    return await read(argv, env);
  } finally {
    rmSync(file);
  }
}

async function sentence(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OperationalError, `${error}`);
  assert.equal(error.code, 'BAD_SETTING');
  assert.equal(error.exitCode, 2);
  return error.sentence;
}

test('defaults, with the data directory made absolute and everything frozen', async () => {
  const settings = await read();
  assert.equal(settings.dataDir, join(cwd, '.millrace'));
  assert.deepEqual(settings.kafka, [{ host: '127.0.0.1', port: 9092 }]);
  assert.equal(settings.databaseUrl, null);
  assert.equal(settings.logRetentionMs, 604_800_000);
  assert.ok(Object.isFrozen(settings));
});

test('flags win over the environment, the environment over the file, the file over defaults', async () => {
  const yaml = 'num.partitions: 2\nhttp: 127.0.0.1:1\nlog.level: warn\n';
  const env = { MILLRACE_NUM_PARTITIONS: '3', MILLRACE_HTTP: '127.0.0.1:2' };
  const settings = await readWith(yaml, ['--num-partitions', '4'], env);
  assert.equal(settings.numPartitions, 4);
  assert.equal(settings.http.port, 2);
  assert.equal(settings.logLevel, 'warn');
  assert.equal(settings.messageMaxBytes, 1_048_588);
});

test('units, lists, switches and IPv6', async () => {
  const settings = await readWith(
    'tail.cache.bytes: 1 GiB\nlog.retention.ms: 36h\nkafka: [127.0.0.1:1, "[::1]:2"]\nlog.connections: true\n',
    ['--profiling', '--auto-create-topics-enable=false', '--log-retention-bytes', '-1'],
  );
  assert.equal(settings.tailCacheBytes, 2 ** 30);
  assert.equal(settings.logRetentionMs, 36 * 3_600_000);
  assert.deepEqual(settings.kafka, [
    { host: '127.0.0.1', port: 1 },
    { host: '::1', port: 2 },
  ]);
  assert.deepEqual([settings.logConnections, settings.profiling, settings.autoCreateTopicsEnable], [true, true, false]);
  assert.equal(settings.logRetentionBytes, -1);
});

test('what is not known is named with its place and the nearest that is', async () => {
  assert.match(
    await sentence(read(['--num-partition', '1'])),
    /unknown flag --num-partition; did you mean --num-partitions\?/,
  );
  assert.match(
    await sentence(read([], { MILLRACE_LOG_LEVL: 'info' })),
    /environment variable MILLRACE_LOG_LEVL; did you mean MILLRACE_LOG_LEVEL\?/,
  );
  const inFile = await sentence(readWith('retention.ms: 1\n'));
  assert.ok(inFile.includes(`unknown setting "retention.ms" in ${file}; did you mean log.retention.ms?`), inFile);
  assert.match(await sentence(read(['start'])), /unexpected argument "start"/);
});

test('variables that Kubernetes or the tests set are not settings', async () => {
  await read([], {
    MILLRACE_SERVICE_HOST: '10.0.0.1',
    MILLRACE_PORT: 'tcp://10.0.0.1:9092',
    MILLRACE_PORT_9092_TCP: 'tcp://10.0.0.1:9092',
    MILLRACE_TEST_DATABASE_URL: 'postgres://x',
  });
});

test('a bad value is named with its place and what is expected', async () => {
  for (const [argv, expected] of [
    [['--kafka', 'localhost'], /--kafka is "localhost"; give HOST:PORT/],
    [['--http', '127.0.0.1:65536'], /--http is "127.0.0.1:65536"; give HOST:PORT/],
    [['--num-partitions', '0'], /--num-partitions is "0"; give a whole number from 1 to 100000/],
    [['--num-partitions', '1.5'], /give a whole number/],
    [['--log-retention-ms', '7 days'], /give a whole number of at least -1, or a number with one of ms s m h d/],
    [['--message-max-bytes', '3GiB'], /give a whole number from 0 to 2147483647/],
    [['--compression-type', 'brotli'], /give one of uncompressed, producer, gzip/],
    [['--log-connections=yes'], /give true or false/],
    [['--data-dir'], /--data-dir needs a value/],
    [['--data-dir', '--profiling'], /--data-dir needs a value/],
  ] as const) {
    assert.match(await sentence(read(argv)), expected);
  }
  const inFile = await sentence(readWith('segment.interval: weekly\n'));
  assert.ok(inFile.includes(`segment.interval in ${file} is "weekly"; give one of hourly, daily`), inFile);
});

test('pipelines come from the file and from flags, a flag over the file, and each says where it was', async () => {
  const yaml = 'mirror:\n  one: {topics: [a]}\n  two: {topics: [b]}\nsinks: {s: {topics: [c]}}\n';
  const flags = ['--mirror', 'two={"topics": ["d"]}', '--mirror=three={topics: [e, f=g]}', '--capture', 'shop={}'];
  const { mirrors, sinks, captures, inboxes } = await readWith(yaml, flags);
  assert.deepEqual(mirrors, {
    one: { written: { topics: ['a'] }, where: file },
    two: { written: { topics: ['d'] }, where: 'flag --mirror' },
    three: { written: { topics: ['e', 'f=g'] }, where: 'flag --mirror' },
  });
  assert.deepEqual(sinks, { s: { written: { topics: ['c'] }, where: file } });
  assert.deepEqual(captures, { shop: { written: {}, where: 'flag --capture' } });
  assert.deepEqual(inboxes, {});
  assert.match(await sentence(read(['--mirror', '{topics: [a]}'])), /--mirror is "\{topics.*give NAME=DEFINITION/);
  assert.match(await sentence(read(['--sinks', 'a=['])), /--sinks a is not YAML: /);
  assert.match(await sentence(readWith('mirror: [a]\n')), /mirror in .* does not hold mirrors by their names/);
});

test('a file that cannot be read or understood is named', async () => {
  assert.match(await sentence(read(['--config', 'nowhere.yaml'])), /cannot read .*nowhere\.yaml \(ENOENT\)/);
  assert.match(await sentence(read([], { MILLRACE_CONFIG: 'nowhere.yaml' })), /cannot read .*nowhere\.yaml/);
  assert.match(await sentence(readWith('a: [')), /is not YAML: /);
  assert.match(await sentence(readWith('- a\n')), /does not hold "key: value" lines/);
  assert.match(await sentence(readWith('http:\n')), /http in .* has no value/);
  assert.match(await sentence(readWith('http: {port: 1}\n')), /http in .* has a nested value/);
  assert.equal((await readWith('# nothing\n')).numPartitions, 1);
});

test('a secret comes by reference, is refused in the file otherwise, and is never shown', async () => {
  writeFileSync(join(cwd, 'url'), 'postgres://me:hush@db/x\n');
  for (const reference of ['env:DB_URL', 'file:url']) {
    const settings = await readWith(`database.url: ${reference}\n`, [], { DB_URL: 'postgres://me:hush@db/x' });
    assert.equal(settings.databaseUrl, 'postgres://me:hush@db/x');
    assert.deepEqual(settings.secretFiles, reference === 'file:url' ? { databaseUrl: join(cwd, 'url') } : {});
  }
  assert.equal((await readWith('database.url: postgres://me@db/x\n')).databaseUrl, 'postgres://me@db/x');
  for (const url of ['postgres://me:hush@db/x', 'postgres://db/x?user=me&password=hush']) {
    const refusal = await sentence(readWith(`database.url: ${url}\n`));
    assert.match(refusal, /holds a password; write database\.url: env:NAME/);
    assert.ok(!refusal.includes('hush'));
  }
  assert.match(await sentence(read(['--database-url', 'env:NOT_THERE'])), /NOT_THERE, which is not set/);
  assert.match(await sentence(read(['--database-url', 'file:not-there'])), /cannot be read \(ENOENT\)/);
});

test('keys, flags and variables are each used once, and every default reads back as itself', () => {
  for (const spelling of [(key: string) => key, flagOf, variableOf]) {
    const all = settingNames.map(name => spelling(settingOf(name).key));
    assert.equal(new Set(all).size, all.length);
  }
  for (const name of settingNames) {
    const { key, type, default: value } = settingOf(name);
    assert.deepEqual(type.parse(type.format(value)), value, key);
  }
});
