import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flagOf, settingNames, settingOf, variableOf } from '../runtime/settings.ts';
import { renderHelp } from './help.ts';

test('--help names every setting, in lines that fit', () => {
  const lines = renderHelp().split('\n');
  for (const name of settingNames) {
    const { key } = settingOf(name);
    assert.ok(
      lines.some(line => line.startsWith(`  ${flagOf(key)} `) && line.endsWith(`(${variableOf(key)})`)),
      key,
    );
  }
  assert.deepEqual(
    lines.filter(line => line.length > 110),
    [],
  );
});
