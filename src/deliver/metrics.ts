// What /metrics tells of inboxes, read from their status when it is asked for.
import { Counter, type Registry } from 'prom-client';
import { statusMetrics } from '../runtime/status-metrics.ts';
import type { InboxStatus } from './deliveries.ts';

export function observeDeliveries(registry: Registry, read: () => readonly InboxStatus[]): void {
  const { gauge, counter } = statusMetrics(registry, { inbox: status => status.name }, read);
  counter('millrace_inbox_records_total', 'Records read for the inbox', status => status.records);
  counter('millrace_inbox_events_total', 'Events put into the inbox', status => status.events);
  counter('millrace_inbox_duplicates_total', 'Records whose id was known already', status => status.duplicates);
  counter('millrace_inbox_dead_total', 'Records that became no event', status => status.dead);
  counter(
    'millrace_inbox_dead_letters_total',
    'Records and webhooks put into dead letter topics',
    status => status.deadLetters,
  );
  counter('millrace_inbox_written_total', 'Events written to connections', status => status.written);
  gauge('millrace_inbox_connections', 'Open event streams', status => status.connections);
  gauge('millrace_inbox_lag_records', 'Records that are not in the inbox yet', status => Number(status.lag));
  new Counter({
    name: 'millrace_inbox_closed_total',
    help: 'Event streams that have ended: by their client, as slow, expired, stopping, or failed',
    labelNames: ['inbox', 'reason'] as const,
    registers: [registry],
    collect() {
      this.reset();
      for (const { name, closed } of read()) {
        for (const [reason, count] of Object.entries(closed)) this.inc({ inbox: name, reason }, count);
      }
    },
  });
}
