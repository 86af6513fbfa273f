// When a topic's segment closes: at the end of the interval of segment.ms that the clock is in, counted from the
// Unix epoch, so that segments of a day or an hour end with it (UTC), or a little earlier (segment.jitter.ms); or at
// segment.bytes, over all partitions.
import type { SegmentRules } from './segments.ts';
import { effectiveConfig, type ServerDefaults } from './topic-config.ts';

/** A segment is a table: shorter intervals would make thousands of them. */
const shortestMs = 60_000;

export function segmentRules(defaults: ServerDefaults): SegmentRules {
  return {
    closesAt(topic, now) {
      const { segmentMs, segmentJitterMs } = effectiveConfig(topic, defaults);
      const interval = Math.max(segmentMs, shortestMs);
      const earlier = partOf(Math.min(segmentJitterMs, interval / 2), topic.id);
      // The end of the year 9999, which Date and Postgres both still write alike; segment.ms may be longer.
      return Math.min((Math.floor((now + earlier) / interval) + 1) * interval - earlier, 253_402_300_799_000);
    },
    maxBytes: topic => effectiveConfig(topic, defaults).segmentBytes,
  };
}

/**
 * A topic's own part of the jitter, always the same. No group is formed while the segments that it needs are being made,
 * one after the other: 500 topics that are written to all the time and began theirs at once would hold all appends up for
 * 1.3 s (PostgreSQL 15, 2 cores).
 */
function partOf(jitterMs: number, topicId: number): number {
  // Multiples of the golden ratio's fraction are spread evenly, however many they are.
  return Math.floor(((topicId * 0.6180339887498949) % 1) * jitterMs);
}
