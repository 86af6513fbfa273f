// Metrics of what there are several of (captures, sinks, inboxes, mirrors), read from their status when /metrics is asked for.
import { Counter, Gauge, type Registry } from 'prom-client';

export interface StatusMetrics<S> {
  /** A status for which `value` is undefined has no such metric. */
  gauge(name: string, help: string, value: (status: S) => number | undefined): void;
  counter(name: string, help: string, value: (status: S) => number | undefined): void;
}

/** `labels`: what each is called, and what it is of a status. */
export function statusMetrics<S>(
  registry: Registry,
  labels: Readonly<Record<string, (status: S) => string>>,
  read: () => readonly S[],
): StatusMetrics<S> {
  type Value = (status: S) => number | undefined;
  const options = (name: string, help: string) => ({
    name,
    help,
    labelNames: Object.keys(labels),
    registers: [registry],
  });
  const refill = (metric: Counter | Gauge, value: Value) => {
    metric.reset();
    for (const status of read()) {
      const number = value(status);
      if (number !== undefined)
        metric.inc(Object.fromEntries(Object.entries(labels).map(([label, of]) => [label, of(status)])), number);
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
