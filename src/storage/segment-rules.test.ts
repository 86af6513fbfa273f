import assert from 'node:assert/strict';
import { test } from 'node:test';
import { settingsWith } from '../runtime/config.ts';
import { segmentRules } from './segment-rules.ts';
import { serverDefaults } from './server-defaults.ts';
import type { Topic, TopicConfig } from './topics.ts';

const topic = (config: TopicConfig = {}): Topic => ({ id: 1, uuid: '', name: 'a', partitionCount: 1, config });
const at = (time: string) => Date.parse(`2026-03-04T${time}Z`);
const closes = (settings: Parameters<typeof settingsWith>[0], config: TopicConfig, time: string) =>
  new Date(segmentRules(serverDefaults(settingsWith(settings))).closesAt(topic(config), at(time))).toISOString();

test('segments end with the day or the hour, or with the topic’s own interval', () => {
  assert.equal(closes({}, {}, '10:20:30'), '2026-03-05T00:00:00.000Z');
  assert.equal(closes({ segmentInterval: 'hourly' }, {}, '10:20:30'), '2026-03-04T11:00:00.000Z');
  assert.equal(closes({}, { 'segment.ms': '600000' }, '10:20:30'), '2026-03-04T10:30:00.000Z');
  assert.equal(closes({}, {}, '00:00:00'), '2026-03-05T00:00:00.000Z');
});

test('an interval is neither shorter than a minute nor longer than a calendar', () => {
  assert.equal(closes({}, { 'segment.ms': '1' }, '10:20:30'), '2026-03-04T10:21:00.000Z');
  assert.equal(closes({}, { 'segment.ms': '9223372036854775807' }, '10:20:30'), '9999-12-31T23:59:59.000Z');
});

test('a segment’s bytes are the topic’s or the broker’s', () => {
  const rules = segmentRules(serverDefaults(settingsWith({ logSegmentBytes: 5_000_000 })));
  assert.equal(rules.maxBytes(topic()), 5_000_000);
  assert.equal(rules.maxBytes(topic({ 'segment.bytes': '2000000' })), 2_000_000);
});

test('what was set is told from what is the default', () => {
  const defaults = serverDefaults(settingsWith({ logRetentionMs: 5, segmentInterval: 'hourly' }));
  assert.deepEqual(defaults.get('log.retention.ms'), { value: '5', set: true });
  assert.deepEqual(defaults.get('log.roll.ms'), { value: '3600000', set: true });
  assert.deepEqual(defaults.get('compression.type'), { value: 'uncompressed', set: false });
  assert.equal(defaults.get('num.partitions'), undefined);
});
