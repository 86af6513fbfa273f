// The main job, on real input: a text file of a million lines or more (COMPAT_LINES), sent by kcat, one record a line, to
// one partition, and read back byte for byte by kcat, by the Java client in a consumer group, and by SQL.
// Usage: suite.ts HOST:PORT; COMPAT_JAVA_OPTIONS is how to start java, COMPAT_DATABASE_URL where Millrace keeps the log.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { bootstrap, execute, runSuite, unique } from '../suite.ts';

const file = process.env.COMPAT_LINES;
if (!file) throw new Error('COMPAT_LINES names no file');
const javaOptions: string[] | null = JSON.parse(process.env.COMPAT_JAVA_OPTIONS ?? 'null');
const databaseUrl = process.env.COMPAT_DATABASE_URL;
const topic = unique('lines');
const directory = mkdtempSync(join(tmpdir(), 'compat-lines-'));
process.once('exit', () => rmSync(directory, { recursive: true }));

interface Content {
  lines: number;
  bytes: number;
  md5: string;
}

async function measure(path: string): Promise<Content> {
  const hash = createHash('md5');
  let lines = 0;
  let bytes = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    bytes += chunk.length;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) lines += 1;
  }
  return { lines, bytes, md5: hash.digest('hex') };
}

const sent = await measure(file);

async function timed(what: string, work: () => Promise<void>): Promise<void> {
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  console.log(`# ${what}: ${seconds.toFixed(1)} s, ${Math.round(sent.lines / seconds)} lines/s`);
}

/** Runs a program with its output in a file. */
function outputTo(path: string, command: string, args: string[]): Promise<void> {
  const output = openSync(path, 'w');
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', output, 'inherit'] });
    child.once('error', reject);
    child.once('close', status => (status === 0 ? resolve() : reject(new Error(`${command} exited with ${status}`))));
  });
}

async function assertSame(path: string): Promise<void> {
  const { status, stdout, stderr } = await execute('cmp', [file!, path]);
  assert.equal(status, 0, `${stdout}${stderr}`);
}

await runSuite(
  [
    {
      name: 'kcat sends a million lines',
      run: async () => {
        assert.ok(sent.lines >= 1_000_000, `${file} has ${sent.lines} lines`);
        console.log(`# ${sent.lines} lines, ${sent.bytes} bytes, md5 ${sent.md5}`);
        await timed('kcat produced', async () => {
          const { status, stderr } = await execute('kcat', ['-b', bootstrap, '-P', '-t', topic, '-p', '0', '-l', file]);
          assert.equal(status, 0, stderr);
        });
        const { stdout } = await execute('kcat', ['-b', bootstrap, '-Q', '-t', `${topic}:0:-1`]);
        assert.equal(stdout.toString().trim(), `${topic} [0] offset ${sent.lines}`);
      },
    },
    {
      name: 'kcat reads them back, byte for byte',
      run: async () => {
        const path = join(directory, 'kcat');
        const args = ['-b', bootstrap, '-C', '-q', '-e', '-t', topic, '-p', '0', '-o', 'beginning'];
        await timed('kcat consumed', () => outputTo(path, 'kcat', args));
        await assertSame(path);
      },
    },
    {
      name: 'the Java client in a consumer group reads them back, byte for byte',
      ...(javaOptions ? {} : { skip: 'no Java here' }),
      run: async () => {
        const path = join(directory, 'java');
        const args = [...javaOptions!, 'Lines', bootstrap, topic, unique('lines'), String(sent.lines)];
        await timed('Java consumed', () => outputTo(path, 'java', args));
        await assertSame(path);
      },
    },
    {
      name: 'SQL reads them back, byte for byte',
      ...(databaseUrl ? {} : { skip: 'no database URL: not Millrace, or not started here' }),
      run: async () => {
        const client = new pg.Client({ connectionString: databaseUrl! });
        await client.connect();
        try {
          await timed('SQL read', async () => {
            const { rows } = await client.query(
              `SELECT count(*)::int AS lines, min(partition_offset)::int AS first, max(partition_offset)::int AS last,
                 md5(string_agg(value, '\\x0a'::bytea ORDER BY partition_offset) || '\\x0a'::bytea) AS md5
               FROM kafka.messages WHERE topic = $1`,
              [topic],
            );
            assert.deepEqual(rows, [{ lines: sent.lines, first: 0, last: sent.lines - 1, md5: sent.md5 }]);
          });
          const { rows } = await client.query(
            `SELECT count(*)::int AS lines, md5(string_agg(convert_from(value, 'UTF8'), E'\\n' ORDER BY partition_offset)
               || E'\\n') AS md5
             FROM kafka.messages WHERE topic = $1`,
            [topic],
          );
          assert.deepEqual(rows, [{ lines: sent.lines, md5: sent.md5 }]);
        } finally {
          await client.end();
        }
      },
    },
  ],
  180_000,
);
