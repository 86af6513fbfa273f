// When a topic's segment closes: at the end of the interval of segment.ms that the clock is in, counted from the
// Unix epoch, so that segments of a day or an hour end with it (UTC); or at segment.bytes, over all partitions.
import type { SegmentRules } from './segments.ts';
import { effectiveConfig, type ServerDefaults } from './topic-config.ts';

/** A segment is a table: shorter intervals would make thousands of them. */
const shortestMs = 60_000;

export function segmentRules(defaults: ServerDefaults): SegmentRules {
  return {
    closesAt(topic, now) {
      const interval = Math.max(effectiveConfig(topic, defaults).segmentMs, shortestMs);
      // The end of the year 9999, which Date and Postgres both still write alike; segment.ms may be longer.
      return Math.min((Math.floor(now / interval) + 1) * interval, 253_402_300_799_000);
    },
    maxBytes: topic => effectiveConfig(topic, defaults).segmentBytes,
  };
}
