// The metrics of a result, their units, and whether more is better.

export const metrics = {
  records_per_s: { unit: 'records/s', better: 'more' },
  changes_per_s: { unit: 'changes/s', better: 'more' },
  deliveries_per_s: { unit: 'deliveries/s', better: 'more' },
  lost_events: { unit: 'events', better: 'less' },
  repeated_events: { unit: 'events', better: 'less' },
  sent_events: { unit: 'events', better: 'neither' },
  sending_s: { unit: 's', better: 'neither' },
  recovered_ms: { unit: 'ms', better: 'less' },
  mb_per_s: { unit: 'MB/s', better: 'more' },
  p50_ms: { unit: 'ms', better: 'less' },
  p95_ms: { unit: 'ms', better: 'less' },
  p99_ms: { unit: 'ms', better: 'less' },
  p999_ms: { unit: 'ms', better: 'less' },
  ack_p50_ms: { unit: 'ms', better: 'less' },
  ack_p95_ms: { unit: 'ms', better: 'less' },
  ack_p99_ms: { unit: 'ms', better: 'less' },
  ack_p999_ms: { unit: 'ms', better: 'less' },
  cpu_s_per_million: { unit: 'CPU s per million records', better: 'less' },
  broker_cpu_s_per_million: { unit: 'CPU s per million records', better: 'less' },
  postgres_cpu_s_per_million: { unit: 'CPU s per million records', better: 'less' },
  client_cpu_s_per_million: { unit: 'CPU s per million records', better: 'less' },
  wal_bytes_per_byte: { unit: 'WAL bytes per payload byte', better: 'less' },
  wal_bytes_per_record: { unit: 'bytes', better: 'less' },
  rss_mb: { unit: 'MB', better: 'less' },
  peak_rss_mb: { unit: 'MB', better: 'less' },
  in_flight_rss_mb: { unit: 'MB', better: 'less' },
  behind_ms: { unit: 'ms', better: 'less' },
  broker_rss_mb: { unit: 'MB', better: 'less' },
  broker_rss_mb_per_minute: { unit: 'MB/min', better: 'less' },
  postgres_rss_mb: { unit: 'MB', better: 'less' },
  postgres_own_mb: { unit: 'MB', better: 'less' },
  total_rss_mb: { unit: 'MB', better: 'less' },
  disk_bytes_per_record: { unit: 'bytes', better: 'less' },
  start_ms: { unit: 'ms', better: 'less' },
  fetch_p50_ms: { unit: 'ms', better: 'less' },
  fetch_p99_ms: { unit: 'ms', better: 'less' },
  fetch_cold_p50_ms: { unit: 'ms', better: 'less' },
  fetch_cold_p99_ms: { unit: 'ms', better: 'less' },
  rate_ratio: { unit: '×', better: 'more' },
  fetch_cold_p50_ratio: { unit: '×', better: 'less' },
  fetch_cold_p99_ratio: { unit: '×', better: 'less' },
  batch_bytes: { unit: 'bytes', better: 'neither' },
} as const satisfies Record<string, { unit: string; better: 'more' | 'less' | 'neither' }>;

export type Metric = keyof typeof metrics;

export interface Result {
  readonly scenario: string;
  readonly system: string;
  readonly metric: Metric;
  readonly unit: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
}

/** Five digits are more than a run can mean. */
export const rounded = (value: number): number => Number(value.toPrecision(5));

export function summarised(scenario: string, system: string, metric: Metric, values: readonly number[]): Result {
  return {
    scenario,
    system,
    metric,
    unit: metrics[metric].unit,
    median: rounded(median(values)),
    min: rounded(Math.min(...values)),
    max: rounded(Math.max(...values)),
  };
}

export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
  return { p50: at(0.5), p99: at(0.99) };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
