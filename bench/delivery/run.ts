// npm run bench -- delivery: events from three producers through a topic to open event streams, by Millrace and by the design
// that people build for that, from the same broker and on the same PostgreSQL, one after the other. Producers and clients
// are on the same machine. Rounds are interleaved, and none is thrown away: each begins after a warm-up.
import { setTimeout as delay } from 'node:timers/promises';
import { type Admin, Kafka, logLevel } from 'kafkajs';
import pg from 'pg';
import { startProducers } from '../../examples/notifications/producers.ts';
import { type Metric, metrics, type Result, summarised } from '../metrics.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Sample } from '../peers/system.ts';
import { residentMb } from '../processes.ts';
import { Audience } from './audience.ts';
import { MillraceNotifier } from './millrace-notifier.ts';
import type { Notifier } from './notifier.ts';
import type { DeliveryScenario } from './scenarios.ts';
import { StatusColumnNotifier } from './status-column-notifier.ts';

export interface DeliveryRun {
  readonly millrace: Millrace;
  readonly scenarios: readonly DeliveryScenario[];
  /** How long each rate is measured. */
  readonly seconds: number;
  /** How long a snapshot is held. */
  readonly snapshotMinutes: number;
  readonly peers: readonly string[];
  readonly rounds: number;
  readonly log: (line: string) => void;
}

export interface DeliveryMeasured {
  readonly results: Result[];
  readonly systems: Record<string, string>;
  readonly settings: Record<string, Record<string, string>>;
}

export const deliveryPeers: readonly string[] = ['status-column'];
const users = 100_000;
const partitions = 6;
const warmupMs = 5000;
/** How long what has been sent may still be under way. */
const patienceMs = 60_000;

export async function measureDelivery(run: DeliveryRun): Promise<DeliveryMeasured> {
  const { millrace, scenarios, peers, rounds, log } = run;
  const notifiers: Notifier[] = [new MillraceNotifier(millrace)];
  if (peers.includes('status-column')) notifiers.push(new StatusColumnNotifier(millrace));
  const samples = new Map<string, Sample[]>();
  for (const scenario of scenarios) {
    for (let round = 1; round <= rounds; round++) {
      for (const notifier of notifiers) {
        const topic = `${scenario.name}-${notifier.name}-${round}`;
        await createTopic(millrace, topic);
        await notifier.start(topic);
        const audience = await Audience.connect(notifier.url, scenario.connections);
        try {
          const sample = await measure(run, { scenario, notifier, audience, topic });
          const shown = Object.entries(sample).map(([metric, value]) => `${metric} ${value.toPrecision(4)}`);
          log(`${scenario.name} ${round} ${notifier.name.padEnd(14)} ${shown.join('  ')}`);
          const key = `${scenario.name} ${notifier.name}`;
          samples.set(key, [...(samples.get(key) ?? []), sample]);
        } finally {
          await audience.leave();
          await notifier.stop();
          await deleteTopic(millrace, topic);
        }
      }
    }
  }
  const results: Result[] = [];
  for (const { name: scenario } of scenarios) {
    for (const { name } of notifiers) {
      const of = samples.get(`${scenario} ${name}`) ?? [];
      for (const metric of Object.keys(metrics) as Metric[]) {
        const values = of.flatMap(sample => sample[metric] ?? []);
        if (values.length > 0) results.push(summarised(scenario, name, metric, values));
      }
    }
  }
  const { seconds, snapshotMinutes } = run;
  return {
    results,
    systems: Object.fromEntries(notifiers.map(({ name, description }) => [name, description])),
    settings: { millrace: { measured: `${seconds} s each`, snapshot: `held for ${snapshotMinutes} minutes` } },
  };
}

interface Subject {
  readonly scenario: DeliveryScenario;
  readonly notifier: Notifier;
  readonly audience: Audience;
  readonly topic: string;
}

async function measure(run: DeliveryRun, subject: Subject): Promise<Record<string, number> & Sample> {
  const { millrace, seconds } = run;
  const { scenario, notifier, audience, topic } = subject;
  if (scenario.work === 'idle') {
    await delay(warmupMs);
    return { rss_mb: residentMb(notifier.processes) };
  }
  const producers = await startProducers({
    broker: millrace.bootstrap,
    topic,
    eventsPerSecond: scenario.rate,
    users,
    connected: scenario.connections,
    connectedShare: 1,
  });
  try {
    await delay(warmupMs);
    const sample = await measureWhileSent(run, subject, seconds);
    await producers.stop();
    await audience.until(() => audience.all >= producers.sent.connected, patienceMs).catch(() => {}); // what is missing is told
    const missing = producers.sent.connected - audience.all;
    return {
      ...sample,
      rss_mb: residentMb(notifier.processes),
      lost_events: missing,
      repeated_events: audience.repeated,
    };
  } finally {
    await producers.stop();
  }
}

async function measureWhileSent(run: DeliveryRun, subject: Subject, seconds: number): Promise<Sample> {
  const { audience, notifier, scenario } = subject;
  if (scenario.work === 'storm') return { recovered_ms: await audience.drop() };
  const before = await rate(audience, seconds);
  if (scenario.work === 'rate') return before;
  const client = new pg.Client({ connectionString: notifier.databaseUrl });
  await client.connect();
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await client.query('SELECT count(*) FROM pg_class');
    await delay(run.snapshotMinutes * 60_000);
    const held = await rate(audience, seconds);
    return { ...held, rate_ratio: held.deliveries_per_s! / before.deliveries_per_s! };
  } finally {
    await client.end();
  }
}

async function rate(audience: Audience, seconds: number): Promise<Sample> {
  audience.reset();
  const began = performance.now();
  await delay(seconds * 1000);
  const { events, latencies } = audience;
  return {
    deliveries_per_s: events / ((performance.now() - began) / 1000),
    p50_ms: latencies.quantile(0.5),
    p95_ms: latencies.quantile(0.95),
    p99_ms: latencies.quantile(0.99),
  };
}

const createTopic = (millrace: Millrace, topic: string): Promise<unknown> =>
  administer(millrace, admin => admin.createTopics({ topics: [{ topic, numPartitions: partitions }] }));

const deleteTopic = (millrace: Millrace, topic: string): Promise<unknown> =>
  administer(millrace, admin => admin.deleteTopics({ topics: [topic] }));

async function administer(millrace: Millrace, work: (admin: Admin) => Promise<unknown>): Promise<void> {
  const admin = new Kafka({ brokers: [millrace.bootstrap], logLevel: logLevel.ERROR }).admin();
  await admin.connect();
  try {
    await work(admin);
  } finally {
    await admin.disconnect();
  }
}
