// What /metrics tells of webhooks, read from their status when it is asked for.
import type { Registry } from 'prom-client';
import { statusMetrics } from '../../runtime/status-metrics.ts';
import type { WebhookStatus } from './dispatcher.ts';

export function observeWebhooks(registry: Registry, read: () => readonly WebhookStatus[]): void {
  const { gauge, counter } = statusMetrics(registry, { inbox: status => status.name }, read);
  counter('millrace_webhook_delivered_total', 'Events that their endpoints have taken', status => status.delivered);
  counter('millrace_webhook_failed_total', 'Attempts that failed', status => status.failed);
  counter('millrace_webhook_throttled_total', 'Attempts answered 429', status => status.throttled);
  counter('millrace_webhook_dead_total', 'Events given up after their last attempt', status => status.dead);
  counter('millrace_webhook_expired_total', 'Events passed over because their time was over', status => status.expired);
  counter(
    'millrace_webhook_unaddressed_total',
    'Events passed over because their subscriber has no endpoint',
    status => status.unaddressed,
  );
  counter(
    'millrace_webhook_fenced_total',
    'Completions refused because another process had the lease by then',
    status => status.fenced,
  );
  gauge('millrace_webhook_lanes', 'Lanes of the inbox that this process has the lease of', status => status.lanes);
  gauge('millrace_webhook_active', 'Requests under way', status => status.active);
  gauge('millrace_webhook_queued', 'Events read and waiting to be sent', status => status.queued);
  gauge('millrace_webhook_retrying', 'Events to be tried again', status => status.retrying);
  gauge('millrace_webhook_held', 'Subscribers passed over until their endpoint takes events', status => status.held);
  gauge('millrace_webhook_endpoints_open', 'Endpoints whose circuit breaker is open', status => status.open);
  gauge('millrace_webhook_endpoints_disabled', 'Endpoints that are disabled, of those seen', status => status.disabled);
}
