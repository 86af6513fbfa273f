// The house's own rules: which room may import which (ARCHITECTURE.md), and that every handler is registered once,
// under the name of its message.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { handlers } from '../src/broker/handlers/index.ts';

const src = fileURLToPath(new URL('../src/', import.meta.url));

/** A room → the rooms it may import. server.ts and main.ts see everything; nothing else may see them but cli. */
const mayImport: Record<string, readonly string[]> = {
  runtime: [],
  protocol: [],
  postgres: ['runtime'],
  storage: ['postgres', 'runtime', 'protocol'],
  client: ['runtime', 'protocol'],
  source: ['storage', 'client', 'postgres', 'runtime', 'protocol'],
  broker: ['storage', 'postgres', 'runtime', 'protocol'],
  capture: ['storage', 'client', 'postgres', 'runtime', 'protocol'],
  sink: ['source', 'storage', 'client', 'postgres', 'runtime', 'protocol'],
  deliver: ['source', 'storage', 'postgres', 'runtime', 'protocol'],
  mirror: ['source', 'storage', 'client', 'postgres', 'runtime', 'protocol'],
  http: ['storage', 'runtime'],
  cli: ['server.ts', 'mirror', 'client', 'runtime'],
};

function* sources(directory: string): Iterable<string> {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* sources(path);
    else if (entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts')) yield path;
  }
}

const roomOf = (path: string): string => relative(src, path).split('/')[0]!;

test('imports follow the table of rooms', () => {
  const wrong: string[] = [];
  for (const path of sources(src)) {
    const room = roomOf(path);
    const allowed = mayImport[room];
    for (const [, specifier] of readFileSync(path, 'utf8').matchAll(/from '(\.[^']+)'/g)) {
      const target = roomOf(resolve(dirname(path), specifier!));
      if (allowed && target !== room && !allowed.includes(target)) {
        wrong.push(`${relative(src, path)} imports ${specifier}`);
      }
    }
  }
  assert.deepEqual(wrong, []);
});

test('every handler file is registered once and named after its message', () => {
  const numbered = (directory: string) =>
    readdirSync(join(src, directory))
      .filter(name => /^\d\d-.*\.ts$/.test(name) && !name.endsWith('.test.ts'))
      .sort();
  const messages = numbered('protocol/messages');
  const files = numbered('broker/handlers');
  const keys = handlers.map(({ api }) => api.key);
  assert.equal(new Set(keys).size, keys.length, 'an API key is registered twice');
  assert.deepEqual(
    files.map(name => Number.parseInt(name, 10)),
    keys.toSorted((a, b) => a - b),
  );
  assert.deepEqual(
    files.filter(name => !messages.includes(name)),
    [],
  );
});

test('a handler serves only versions that its codec knows', () => {
  for (const { api, versions } of handlers) {
    assert.ok(versions[0] >= api.versions[0] && versions[1] <= api.versions[1] && versions[0] <= versions[1], api.name);
  }
});
