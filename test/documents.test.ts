// That the documents say what is so: parts that are made from the code are as the code makes them, links lead
// somewhere, and npm scripts that are named exist.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { kafkaApis } from '../scripts/kafka-apis.ts';
import { replaceMetrics } from '../scripts/metrics-doc.ts';
import { replaceDeviations, replaceProtocol } from '../scripts/protocol-doc.ts';
import { handlers } from '../src/broker/handlers/index.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const notOurs = new Set(['node_modules', 'dist', '.git', '.cache', '.millrace', 'fixtures']);
const documents = [...find(root)];
const read = (document: string): string => readFileSync(join(root, document), 'utf8');

function* find(directory: string): Iterable<string> {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory() && !notOurs.has(entry.name)) yield* find(path);
    else if (entry.name.endsWith('.md')) yield relative(root, path);
  }
}

test('docs/protocol.md and docs/deviations.md are what the handlers make of them', () => {
  const [protocol, deviations] = [read('docs/protocol.md'), read('docs/deviations.md')];
  assert.equal(replaceProtocol(protocol), protocol, 'run: npm run docs:protocol');
  assert.equal(replaceDeviations(deviations), deviations, 'run: npm run docs:protocol');
});

test('the metrics of docs/operations.md are those that there are', async () => {
  const operations = read('docs/operations.md');
  assert.equal(await replaceMetrics(operations), operations, 'run: npm run docs:metrics');
});

test('what is served has Kafka’s names, and no version that Kafka does not know', () => {
  for (const { api, versions } of handlers) {
    const kafka = kafkaApis.find(({ key }) => key === api.key);
    assert.equal(api.name, kafka?.name);
    assert.ok(versions[1] <= kafka!.versions[1], api.name);
  }
});

test('relative links lead to files, and to headings in them', () => {
  const broken: string[] = [];
  for (const document of documents) {
    for (const [, target] of withoutCode(read(document)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue;
      const [path, heading] = target!.split('#') as [string, string?];
      const file = path === '' ? join(root, document) : resolve(root, dirname(document), path);
      if (!existsSync(file) || (heading !== undefined && !headingsOf(file).has(heading))) {
        broken.push(`${document}: ${target}`);
      }
    }
  }
  assert.deepEqual(broken, []);
});

test('npm scripts that documents name exist', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const missing: string[] = [];
  for (const document of documents) {
    for (const [, name] of read(document).matchAll(/npm run ([\w:-]+)/g)) {
      if (scripts[name!] === undefined) missing.push(`${document}: npm run ${name}`);
    }
  }
  assert.deepEqual(missing, []);
  assert.ok(scripts.start && scripts.test, 'the two commands of README.md');
});

const withoutBlocks = (markdown: string): string => markdown.replaceAll(/^```[\s\S]*?^```/gm, '');
const withoutCode = (markdown: string): string => withoutBlocks(markdown).replaceAll(/`[^`\n]*`/g, '');

/** As GitHub makes anchors of headings. */
function headingsOf(file: string): Set<string> {
  if (!file.endsWith('.md') || !statSync(file).isFile()) return new Set();
  const headings = withoutBlocks(readFileSync(file, 'utf8')).matchAll(/^#+ (.+)$/gm);
  return new Set(Array.from(headings, ([, text]) => anchorOf(text!)));
}

const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(' ', '-');
