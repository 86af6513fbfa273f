import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { replaceTopicConfigs } from './topic-config-doc.ts';

test('docs/topics.md is what the code makes of it', () => {
  const document = readFileSync(new URL('../../docs/topics.md', import.meta.url), 'utf8');
  assert.equal(replaceTopicConfigs(document), document, 'run: npm run docs:topics');
});
