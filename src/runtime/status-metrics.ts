// Metrics of what there are several of (captures, sinks, inboxes), read from their status when /metrics is asked for.
import { Counter, Gauge, type Registry } from 'prom-client';

export interface StatusMetrics<S> {
  /** A status for which `value` is undefined has no such metric. */
  gauge(name: string, help: string, value: (status: S) => number | undefined): void;
  counter(name: string, help: string, value: (status: S) => number | undefined): void;
}

/** `label`: of the names. */
export function statusMetrics<S extends { readonly name: string }>(
  registry: Registry,
  label: string,
  read: () => readonly S[],
): StatusMetrics<S> {
  type Value = (status: S) => number | undefined;
  const options = (name: string, help: string) => ({ name, help, labelNames: [label], registers: [registry] });
  const refill = (metric: Counter | Gauge, value: Value) => {
    metric.reset();
    for (const status of read()) {
      const number = value(status);
      if (number !== undefined) metric.inc({ [label]: status.name }, number);
    }
  };
  return {
    gauge(name, help, value) {
      const metric: Gauge = new Gauge({ ...options(name, help), collect: () => refill(metric, value) });
    },
    counter(name, help, value) {
      const metric: Counter = new Counter({ ...options(name, help), collect: () => refill(metric, value) });
    },
  };
}
