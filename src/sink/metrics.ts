// What /metrics tells of sinks, read from their status when it is asked for.
import type { Registry } from 'prom-client';
import { statusMetrics } from '../runtime/status-metrics.ts';
import type { SinkStatus } from './sink.ts';

export function observeSinks(registry: Registry, read: () => readonly SinkStatus[]): void {
  const { gauge, counter } = statusMetrics(registry, { sink: status => status.name }, read);
  counter('millrace_sink_records_total', 'Records whose offsets have been committed', status => status.records);
  counter('millrace_sink_rows_total', 'Rows written and deleted, repeats of a key in a batch included', s => s.rows);
  counter('millrace_sink_bytes_total', 'Bytes of those records’ keys and values', status => status.bytes);
  counter('millrace_sink_batches_total', 'Transactions that wrote them', status => status.batches);
  counter('millrace_sink_bisected_total', 'Batches that PostgreSQL refused and that went in parts', s => s.bisected);
  counter('millrace_sink_dead_letters_total', 'Records that went to the dead letter topic', s => s.deadLetters);
  counter('millrace_sink_write_seconds_total', 'Time that tasks spent writing', status => status.writeMs / 1000);
  gauge('millrace_sink_running', '1 while the sink runs', status => (status.state === 'running' ? 1 : 0));
  gauge('millrace_sink_lag_records', 'Records that are not in their tables yet', status => Number(status.lag));
}
