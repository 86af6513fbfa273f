// What /metrics tells of captures, read from their status when it is asked for.
import { Gauge, type Registry } from 'prom-client';
import { statusMetrics } from '../runtime/status-metrics.ts';
import type { CaptureStatus } from './capture.ts';
import type { SnapshotStatus } from './snapshots.ts';

export function observeCaptures(registry: Registry, read: () => readonly CaptureStatus[]): void {
  const { gauge, counter } = statusMetrics(registry, { capture: status => status.name }, read);
  const tableGauge = (name: string, help: string, value: (snapshot: SnapshotStatus) => number | null) => {
    const metric: Gauge = new Gauge({
      name,
      help,
      labelNames: ['capture', 'table'],
      registers: [registry],
      collect() {
        metric.reset();
        for (const { name: capture, snapshots } of read()) {
          for (const snapshot of snapshots) {
            const number = value(snapshot);
            if (number !== null) metric.set({ capture, table: snapshot.table }, number);
          }
        }
      },
    });
  };
  counter('millrace_capture_transactions_total', 'Transactions captured', status => status.transactions);
  counter('millrace_capture_changes_total', 'Rows changed, truncates and logical messages seen', s => s.changes);
  counter('millrace_capture_records_total', 'Records given to the log', status => status.records);
  counter('millrace_capture_bytes_total', 'Bytes of their batches', status => status.bytes);
  counter('millrace_capture_spooled_bytes_total', 'Of transactions put aside until their commit', s => s.spooledBytes);
  counter('millrace_capture_dead_letters_total', 'Records that were too large for their topic', s => s.deadLetters);
  gauge('millrace_capture_snapshot_rows', 'Rows that the tables’ last snapshots have read', ({ snapshots }) =>
    snapshots.reduce((sum, { rows }) => sum + rows, 0),
  );
  gauge(
    'millrace_capture_snapshot_tables_left',
    'Tables that have not been read to their end',
    ({ snapshots }) => snapshots.filter(({ state }) => state !== 'done').length,
  );
  tableGauge('millrace_capture_snapshot_table_rows', 'Rows of a table that its last snapshot has read', s => s.rows);
  tableGauge('millrace_capture_snapshot_table_bytes', 'Bytes of their values as text', s => s.bytes);
  tableGauge(
    'millrace_capture_snapshot_table_estimated_rows',
    'Rows that the planner took the table to have',
    s => s.estimatedRows,
  );
  gauge('millrace_capture_streaming', '1 while the capture streams', s => (s.state === 'streaming' ? 1 : 0));
  gauge('millrace_capture_target_trouble', '1 while a remote target does not take records', ({ target }) =>
    target === undefined ? undefined : Number(target.trouble !== undefined),
  );
  gauge('millrace_capture_lag_seconds', 'Age of the newest commit seen while anything waits', s => s.lagMs / 1000);
  gauge(
    'millrace_capture_retained_wal_bytes',
    'WAL that the slot holds back',
    s => s.slot && Number(s.slot.retainedBytes),
  );
  gauge('millrace_capture_safe_wal_bytes', 'WAL that may still be written before the slot is invalidated', s =>
    s.slot?.safeBytes == null ? undefined : Number(s.slot.safeBytes),
  );
}
