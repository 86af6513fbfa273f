// What Millrace is meant to reach, as data, and whether a run's results do. A figure is Millrace's median, or with a
// peer the ratio, or the difference, of the two medians of the same run.
import type { Metric, Result } from './metrics.ts';

export interface Target {
  readonly what: string;
  readonly scenario: string;
  readonly metric: Metric;
  /** Whose figure; millrace where there is none. */
  readonly system?: string;
  /** The figure is Millrace's divided by this system's, or with `difference` less this system's. */
  readonly peer?: string;
  readonly difference?: true;
  readonly atLeast?: number;
  readonly atMost?: number;
}

export interface Judged {
  readonly target: Target;
  readonly value: number | undefined;
  readonly verdict: 'met' | 'not met' | 'not measured';
}

const shapes = ['100B-1p', '100B-6p', '1KiB-1p', '1KiB-6p'];
const rate = 'records_per_s';

/** At least this multiple of a peer's records a second, in each shape of a kind of work. */
const overShapes = (what: string, work: string, client: string, peer: string, least: (shape: string) => number) =>
  shapes.map(
    (shape): Target => ({
      what,
      scenario: `${work}-${shape}-${client}`,
      metric: rate,
      peer,
      atLeast: least(shape),
    }),
  );

const bySize = (small: number, large: number) => (shape: string) => (shape.startsWith('100B') ? small : large);
const produce = (client: string): Target[] => [
  ...overShapes('produce', 'produce', client, 'kafka', () => (client === 'java' ? 1 : 0.7)),
  ...overShapes('produce, same promise', 'produce', client, 'kafka-flush', bySize(1.2, 1)),
];
const within = (what: string, scenario: string, bounds: Partial<Record<Metric, number>>): Target[] =>
  Object.entries(bounds).map(([metric, atMost]) => ({ what, scenario, metric: metric as Metric, atMost }));

const longPolling = (perSecond: number): Target[] =>
  within('1,000 long-polling consumers', `longpoll-1000-${perSecond}-1KiB-1p-librdkafka`, {
    p99_ms: 50,
    broker_rss_mb: 300,
  });

const endToEnd = (scenario: string): Target[] => [
  { what: 'end to end', scenario, metric: 'p50_ms', peer: 'kafka', difference: true, atMost: 2 },
  { what: 'end to end', scenario, metric: 'p99_ms', atMost: 10 },
  { what: 'end to end', scenario, metric: 'p99_ms', peer: 'kafka-flush', atMost: 1 },
];

/** At least this multiple of a peer's changes a second, in each backlog. */
const draining = (what: string, peer: string, atLeast: number, system?: string): Target[] =>
  ['backlog-insert', 'backlog-mixed'].map(
    (scenario): Target => ({ what, scenario, metric: 'changes_per_s', ...(system && { system }), peer, atLeast }),
  );

const lag = (metric: Metric): Target[] =>
  ['live-1000', 'live-5000'].map(
    (scenario): Target => ({ what: 'commit to consumer', scenario, metric, peer: 'debezium', atMost: 1 }),
  );

const delivery: Target[] = [
  ...within('event to connected client, 1,200 events/s', 'deliver-1200', {
    p99_ms: 100,
    lost_events: 0,
    repeated_events: 0,
  }),
  { what: '1,000 connections', scenario: 'deliver-12000', metric: 'deliveries_per_s', atLeast: 10_000 },
  ...within('1,000 connections', 'deliver-12000', { lost_events: 0, repeated_events: 0 }),
  {
    what: 'a status column, at what each can do',
    scenario: 'deliver-backlog',
    metric: 'deliveries_per_s',
    peer: 'status-column',
    atLeast: 2,
  },
  ...within('a backlog', 'deliver-backlog', { lost_events: 0, repeated_events: 0 }),
  {
    what: 'webhooks, leased work',
    scenario: 'deliver-webhooks-backlog',
    metric: 'deliveries_per_s',
    peer: 'graphile-worker',
    atLeast: 1,
  },
  { what: 'while a snapshot is held', scenario: 'deliver-snapshot', metric: 'rate_ratio', atLeast: 0.9 },
  ...within('1,000 clients that come back at once', 'deliver-storm', {
    recovered_ms: 5000,
    lost_events: 0,
    repeated_events: 0,
  }),
  ...within('10,000 idle connections', 'deliver-idle', { rss_mb: 300 }),
];

const capture: Target[] = [
  ...draining('capture, envelope for envelope', 'debezium', 2),
  ...draining('capture, plain format', 'debezium', 3, 'millrace-plain'),
  ...draining("capture, the walsender's limit", 'pg_recvlogical', 0.4),
  ...lag('p50_ms'),
  ...lag('p99_ms'),
  ...within('ten million rows in a transaction', 'transaction', { in_flight_rss_mb: 150 }),
];

const drains = ['fresh', 'repeats', 'insert'].flatMap(shape => [`sink-${shape}-plain`, `sink-${shape}-schemas`]);
const sink: Target[] = [
  ...drains.map(
    (scenario): Target => ({
      what: "a topic into a table, Connect's JDBC sink",
      scenario,
      metric: rate,
      peer: 'jdbc',
      atLeast: scenario.includes('insert') ? 3 : 2,
    }),
  ),
  ...drains.map(
    (scenario): Target => ({
      what: 'a topic into a table, the limit',
      scenario,
      metric: rate,
      peer: 'copy',
      atLeast: 0.8,
    }),
  ),
  { what: 'generator to table, sustained', scenario: 'pipeline-fresh-plain', metric: rate, atLeast: 50_000 },
  { what: 'generator to table, sustained', scenario: 'pipeline-repeats-schemas', metric: rate, atLeast: 30_000 },
  ...within('produced to visible', 'pipeline-fresh-schemas-20000', { p99_ms: 500 }),
  ...['fresh-plain', 'repeats-schemas', 'fresh-schemas-20000'].flatMap(shape =>
    within('broker and sink, resident', `pipeline-${shape}`, { peak_rss_mb: 250 }),
  ),
];

const copies = ['initial-100B', 'initial-10M-100B'];
const mirror: Target[] = [
  ...copies.map(
    (scenario): Target => ({
      what: 'initial copy to Kafka',
      scenario,
      metric: rate,
      peer: 'mirrormaker2',
      atLeast: 2,
    }),
  ),
  ...copies.flatMap(scenario => within('log and mirror, resident', scenario, { peak_rss_mb: 200 })),
  ...(['p50_ms', 'p99_ms'] as const).map(
    (metric): Target => ({
      what: 'acknowledged to readable in the target',
      scenario: 'lag-5000',
      metric,
      peer: 'mirrormaker2',
      atMost: 1,
    }),
  ),
  ...within('acknowledged to readable in the target', 'lag-50000', { p99_ms: 100 }),
  { what: 'both sides compared', scenario: 'compare-100B', metric: rate, atLeast: 500_000 },
];

export const targets: readonly Target[] = [
  ...produce('java'),
  ...produce('librdkafka'),
  ...overShapes("the database's limit", 'produce', 'librdkafka', 'copy', () => 0.7),
  ...overShapes('a row per message', 'produce', 'librdkafka', 'rows', bySize(10, 3)),
  { what: '100 producers that do not batch', ...unbatched('kafka-flush'), atLeast: 3 },
  { what: '100 producers that do not batch', ...unbatched('kafka'), atLeast: 0.8 },
  ...overShapes('consume at the tail', 'consume-tail', 'librdkafka', 'kafka', () => 1),
  ...overShapes('consume cold', 'consume-cold', 'librdkafka', 'kafka', () => 0.8),
  ...endToEnd('latency-5000-1KiB-1p-linger0-librdkafka'),
  ...endToEnd('latency-5000-1KiB-1p-librdkafka'),
  ...longPolling(1000),
  ...longPolling(5000),
  ...shapes.map(
    (shape): Target => ({
      what: 'resident memory',
      scenario: `produce-${shape}-librdkafka`,
      metric: 'total_rss_mb',
      peer: 'kafka',
      atMost: 0.5,
    }),
  ),
  ...within('start on existing data', 'startup-librdkafka', { start_ms: 2000 }),
  { what: 'start on existing data', scenario: 'startup-librdkafka', metric: 'start_ms', peer: 'kafka', atMost: 1 },
  ...['', '-100consumers'].flatMap(consumers =>
    within('fetch of a record just written', `latency-100-1KiB-1p-linger0${consumers}-librdkafka`, {
      p50_ms: 2,
      p99_ms: 10,
    }),
  ),
  ...capture,
  ...delivery,
  ...sink,
  ...mirror,
];

function unbatched(peer: string) {
  return { scenario: 'unbatched-100-librdkafka', metric: rate, peer } as const;
}

export function judge(results: readonly Result[]): Judged[] {
  const median = (system: string, { scenario, metric }: Target): number | undefined =>
    results.find(found => found.system === system && found.scenario === scenario && found.metric === metric)?.median;
  return targets.map(target => {
    const own = median(target.system ?? 'millrace', target);
    const other = target.peer === undefined ? undefined : median(target.peer, target);
    if (own === undefined || (target.peer !== undefined && other === undefined)) {
      return { target, value: undefined, verdict: 'not measured' };
    }
    const value = other === undefined ? own : target.difference ? own - other : own / other;
    const met = value >= (target.atLeast ?? -Infinity) && value <= (target.atMost ?? Infinity);
    return { target, value, verdict: met ? 'met' : 'not met' };
  });
}

export function boundOf({ atLeast, atMost }: Target): string {
  return atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`;
}
