import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatConfigValue, parseConfigValue } from './config-value.ts';
import { effectiveConfig, overridesProblem, type ServerDefaults, topicConfigEntries } from './topic-config.ts';
import { topicConfigSpecs } from './topic-config-table.ts';

const none: ServerDefaults = new Map();
const week = 7 * 86_400_000;

test('the table is in order, without duplicates, and every default is valid and written as it is told', () => {
  const names = topicConfigSpecs.map(spec => spec.name);
  assert.deepEqual(names, [...new Set(names)].sort());
  for (const spec of topicConfigSpecs) {
    assert.equal(formatConfigValue(parseConfigValue(spec, spec.default)), spec.default, spec.name);
    assert.ok(spec.doc.endsWith('.'), spec.name);
  }
});

test('an override counts before the broker’s setting, and that before the default', () => {
  const server: ServerDefaults = new Map([
    ['log.retention.ms', { value: '1000', set: true }],
    ['compression.type', { value: 'producer', set: false }],
  ]);
  const topic = { config: { 'retention.ms': '-1', 'cleanup.policy': 'compact, delete' } };
  assert.equal(effectiveConfig(topic, server).retentionMs, Infinity);
  assert.equal(effectiveConfig({ config: {} }, server).retentionMs, 1000);
  assert.equal(effectiveConfig({ config: {} }, none).retentionMs, week);
  assert.equal(effectiveConfig(topic, server).compressionType, 'producer');
  assert.equal(effectiveConfig(topic, none).compressionType, 'uncompressed');
  assert.deepEqual([effectiveConfig(topic, none).compact, effectiveConfig(topic, none).delete], [true, true]);
});

test('settings are computed once for each set of overrides', () => {
  const topic: { config: Record<string, string> } = { config: { 'segment.ms': '5' } };
  const first = effectiveConfig(topic, none);
  assert.equal(effectiveConfig(topic, none), first);
  topic.config = { 'segment.ms': '6' };
  assert.equal(effectiveConfig(topic, none).segmentMs, 6);
});

test('the level is that of the codec in force', () => {
  const level = (config: Record<string, string>) => effectiveConfig({ config }, none).compressionLevel;
  assert.equal(level({}), undefined);
  assert.equal(level({ 'compression.type': 'lz4' }), undefined);
  assert.equal(level({ 'compression.type': 'zstd' }), 3);
  assert.equal(level({ 'compression.type': 'gzip', 'compression.gzip.level': '9' }), 9);
});

test('sources and synonyms are told as Kafka tells them, the one in force first', () => {
  const server: ServerDefaults = new Map([['log.retention.ms', { value: '1000', set: true }]]);
  const entry = (overrides: Record<string, string>, name: string) =>
    topicConfigEntries(overrides, server).find(({ spec }) => spec.name === name)!;
  assert.deepEqual(entry({ 'retention.ms': ' 0005 ' }, 'retention.ms').synonyms, [
    { name: 'retention.ms', value: '5', source: 'topic' },
    { name: 'log.retention.ms', value: '1000', source: 'static' },
    { name: 'log.retention.ms', value: String(week), source: 'default' },
  ]);
  assert.equal(entry({ 'retention.ms': '5' }, 'retention.ms').source, 'topic');
  assert.equal(entry({}, 'retention.ms').source, 'static');
  assert.equal(entry({}, 'segment.ms').source, 'default');
  assert.deepEqual(entry({}, 'remote.storage.enable').synonyms, []);
  assert.equal(entry({}, 'remote.storage.enable').value, 'false');
});

test('overrides that may not be set are refused with the reason', () => {
  const problem = (config: Record<string, string>) => overridesProblem(config, none);
  assert.equal(problem({ 'retention.ms': '-1', 'compression.type': 'zstd', 'cleanup.policy': 'compact' }), undefined);
  assert.match(problem({ 'retention.msx': '1' })!, /no topic config called retention\.msx/);
  assert.match(problem({ 'retention.ms': 'forever' })!, /invalid value 'forever' for retention\.ms/);
  assert.match(problem({ 'compression.type': 'brotli' })!, /one of uncompressed, zstd/);
  assert.match(problem({ 'min.compaction.lag.ms': '10', 'max.compaction.lag.ms': '9' })!, /more than/);
  assert.match(problem({ 'remote.storage.enable': 'true' })!, /tiered/);
  assert.match(problem({ toString: '1' })!, /no topic config/);
});
