// The registry that /metrics prints. Each part makes its own metrics in the registry it is given; names begin
// with millrace_, base units (seconds, bytes), counters end in _total.
import { collectDefaultMetrics, Registry } from 'prom-client';

export type { Registry } from 'prom-client';

export function createRegistry(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return registry;
}
