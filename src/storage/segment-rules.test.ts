import assert from 'node:assert/strict';
import { test } from 'node:test';
import { settingsWith } from '../runtime/config.ts';
import { segmentRules } from './segment-rules.ts';
import { serverDefaults } from './server-defaults.ts';
import type { Topic, TopicConfig } from './topics.ts';

const topic = (config: TopicConfig = {}): Topic => ({
  id: 1,
  uuid: '',
  name: 'a',
  partitionCount: 1,
  primaryMirror: null,
  config,
});
const at = (time: string) => Date.parse(`2026-03-04T${time}Z`);
const closes = (settings: Parameters<typeof settingsWith>[0], config: TopicConfig, time: string) =>
  new Date(
    segmentRules(serverDefaults(settingsWith({ logRollJitterMs: 0, ...settings }))).closesAt(topic(config), at(time)),
  ).toISOString();

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

test('many topics do not close their segments at once, and each closes its own one interval after the other', () => {
  const hour = 3_600_000;
  const rules = segmentRules(serverDefaults(settingsWith({ segmentInterval: 'hourly' })));
  const boundary = at('11:00:00');
  const perSecond = new Map<number, number>();
  for (let id = 1; id <= 500; id++) {
    const one = { ...topic(), id };
    const closesAt = rules.closesAt(one, at('10:20:30'));
    assert.ok(closesAt <= boundary && closesAt > boundary - 60_000);
    assert.equal(rules.closesAt(one, closesAt), closesAt + hour);
    assert.equal(rules.closesAt(one, closesAt - 1), closesAt);
    const second = Math.floor(closesAt / 1000);
    perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
  }
  assert.ok(Math.max(...perSecond.values()) <= 10, 'a minute for 500');
});

test('jitter is a topic’s own where it has one, and never more than half of its interval', () => {
  const [id, part] = [1, 0.6180339887498949];
  const closesIn = (config: TopicConfig) =>
    at('10:21:00') - segmentRules(serverDefaults(settingsWith({}))).closesAt({ ...topic(config), id }, at('10:20:00'));
  assert.equal(closesIn({ 'segment.ms': '60000', 'segment.jitter.ms': '0' }), 0);
  assert.equal(closesIn({ 'segment.ms': '60000', 'segment.jitter.ms': '1000' }), Math.floor(part * 1000));
  assert.equal(
    closesIn({ 'segment.ms': '60000', 'segment.jitter.ms': '9223372036854775807' }),
    Math.floor(part * 30_000),
  );
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
