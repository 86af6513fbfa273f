// The broker's metrics as the table of docs/operations.md, from the metrics themselves. `npm run docs:metrics` writes it,
// and test/documents.test.ts finds a document that does not agree with the code.
import { Registry } from 'prom-client';
import { GroupMetrics } from '../src/broker/groups/metrics.ts';
import { type Observed, observeBroker } from '../src/broker/metrics.ts';
import { observeCaptures } from '../src/capture/metrics.ts';
import { observeDeliveries } from '../src/deliver/metrics.ts';
import { observeWebhooks } from '../src/deliver/webhooks/metrics.ts';
import { observeMirrors } from '../src/mirror/metrics.ts';
import { observeSinks } from '../src/sink/metrics.ts';
import { replacePart } from './marked-part.ts';

export async function replaceMetrics(document: string): Promise<string> {
  const registry = new Registry();
  new GroupMetrics(registry, () => []);
  observeBroker(registry, idle);
  observeCaptures(registry, () => []);
  observeSinks(registry, () => []);
  observeDeliveries(registry, () => []);
  observeWebhooks(registry, () => []);
  observeMirrors(registry, () => []);
  const metrics = (await registry.getMetricsAsJSON()).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const rows = metrics.map(({ name, type, help }) => `| \`${name}\` | ${type} | ${help} |`);
  return replacePart(document, 'metrics', 'docs:metrics', ['| Metric | Type | |', '|---|---|---|', ...rows]);
}

/** A broker at rest: what its metrics read. */
const idle = {
  log: {
    counters: { batches: 0, bytes: 0, commits: 0, tailReads: 0, storedReads: 0 },
    tailCache: { bytes: 0 },
    leading: false,
    epoch: -1,
  },
  topics: { size: 0 },
  budget: { held: 0 },
  connections: () => 0,
} as unknown as Observed;
