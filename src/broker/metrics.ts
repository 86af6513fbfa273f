// What /metrics tells of the broker. Counts are kept where the work is done and read when they are asked for, so that
// nothing is paid per batch; only requests are observed one by one.
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { Log } from '../storage/log.ts';
import type { Topics } from '../storage/topics.ts';
import type { Budget } from './budget.ts';

export interface Observed {
  readonly log: Log;
  readonly topics: Topics;
  readonly budget: Budget;
  readonly connections: () => number;
}

/** Returns what is to be called for every request served. */
export function observeBroker(registry: Registry, observed: Observed): (api: string, seconds: number) => void {
  const { log, topics, budget, connections } = observed;
  const registers = [registry];
  const counter = (name: string, help: string, read: () => number) =>
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  counter('millrace_appended_batches_total', 'Record batches committed', () => log.counters.batches);
  counter('millrace_appended_bytes_total', 'Bytes of record batches committed', () => log.counters.bytes);
  counter('millrace_append_commits_total', 'Transactions that appended batches', () => log.counters.commits);
  counter('millrace_tail_reads_total', 'Reads answered from memory', () => log.counters.tailReads);
  counter('millrace_stored_reads_total', 'Reads answered from PostgreSQL', () => log.counters.storedReads);
  gauge('millrace_tail_cache_bytes', 'Newest batches held in memory', () => log.tailCache.bytes);
  gauge('millrace_in_flight_bytes', 'Requests and answers in flight', () => budget.held);
  gauge('millrace_connections', 'Kafka connections open', connections);
  gauge('millrace_topics', 'Topics', () => topics.size);
  gauge('millrace_leading', '1 while this broker may append', () => (log.leading ? 1 : 0));
  gauge('millrace_broker_epoch', 'The term of this broker, and the leader epoch of its partitions', () => log.epoch);
  const requests = new Histogram({
    name: 'millrace_request_seconds',
    help: 'From the start of a request to its answer, long polls and waits for COMMIT included',
    labelNames: ['api'],
    buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  // Finding a series by its labels costs more than the observation.
  const series = new Map<string, { observe(seconds: number): void }>();
  return (api, seconds) => {
    let ofApi = series.get(api);
    if (ofApi === undefined) {
      ofApi = requests.labels(api);
      series.set(api, ofApi);
    }
    ofApi.observe(seconds);
  };
}
