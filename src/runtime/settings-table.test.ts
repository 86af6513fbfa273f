import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { flagOf, settingNames, settingOf, variableOf } from './settings.ts';
import { replaceSettingsTable } from './settings-table.ts';

const document = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8');

test('docs/configuration.md is what the code makes of it', () => {
  assert.equal(replaceSettingsTable(document), document, 'run: npm run docs:configuration');
});

test('every setting is in the document, and nothing else looks like one', () => {
  const known = new Set(settingNames.flatMap(name => [flagOf(settingOf(name).key), variableOf(settingOf(name).key)]));
  for (const name of known) assert.ok(document.includes(`\`${name}\``), name);
  const others = new Set(['--config', '--help', '--version', '--mirror', 'MILLRACE_CONFIG']);
  for (const [name] of document.matchAll(/(?<![\w-])(--[a-z][a-z0-9-]*|MILLRACE_[A-Z0-9_]+)/g)) {
    assert.ok(known.has(name) || others.has(name), `${name} is in the document but not in the code`);
  }
});
