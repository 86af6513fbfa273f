import assert from 'node:assert/strict';
import { test } from 'node:test';
import { secrets } from '../../../test/deliver-rig.ts';
import { readDefinition } from '../definition.ts';

const references = { env: { ...secrets, SHORT: 'whsec_c2hvcnQ=' }, cwd: '/' };
const read = (webhook: unknown, rest: Readonly<Record<string, unknown>> = {}) =>
  readDefinition('news', { topics: ['a'], webhook, ...rest }, '/etc/millrace.yaml', references);
const given = { secrets: ['env:WEBHOOK_SECRET'] };

test('a webhook has the schedule of the specification, and is a channel beside streams', () => {
  const { channel, webhook } = read({ ...given, url: 'https://example.org/hook' });
  assert.equal(channel, 'both');
  assert.deepEqual(webhook!.retries.slice(0, 3), [5000, 300_000, 1_800_000]);
  assert.equal(webhook!.retries.length, 9);
  assert.deepEqual([webhook!.timeout, webhook!.order, webhook!.concurrency], [15_000, 'none', 16]);
  assert.equal(read(given, { channel: 'webhook' }).channel, 'webhook');
  assert.equal(read(undefined).channel, 'sse');
});

test('a wrong webhook is told with file, key and what was expected', () => {
  const refused = (webhook: unknown, sentence: RegExp, rest = {}) =>
    assert.throws(
      () => read(webhook, rest),
      (error: Error & { sentence: string }) => sentence.test(error.sentence),
    );
  refused({ ...given, secret: 'x' }, /deliver\.news\.webhook\.secret .*did you mean secrets/);
  refused({ secrets: [secrets.WEBHOOK_SECRET] }, /secrets\.0 .*env:NAME or file:PATH/);
  refused({ secrets: ['env:SHORT'] }, /env:SHORT holds no secret/);
  refused({ secrets: ['env:NOTHING'] }, /NOTHING, which is not set/);
  refused({ ...given, url: 'ftp://example.org' }, /http or https URL/);
  refused({ ...given, url: 'https://me:secret@example.org' }, /without a password/);
  refused({ ...given, retries: ['8d'] }, /retries in .* take longer than events are kept/);
  refused(given, /channel in .* is sse, with settings of a webhook/, { channel: 'sse' });
  refused(undefined, /channel in .* is webhook, without settings/, { channel: 'webhook' });
});
