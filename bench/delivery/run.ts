// npm run bench -- delivery: events from three producers through a topic to open event streams, or to a receiver of webhooks,
// by Millrace and by what people build or take for that, from the same broker and on the same PostgreSQL, one after the
// other. Producers and clients are on the same machine. Rounds are interleaved, and none is thrown away: each begins after a
// warm-up.
import { setTimeout as delay } from 'node:timers/promises';
import { type Admin, Kafka, logLevel } from 'kafkajs';
import pg from 'pg';
import { startCpu } from '../peers/cost.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Sample } from '../peers/system.ts';
import { residentMb } from '../processes.ts';
import { type Measured, Samples, shown } from '../samples.ts';
import { Audience } from './audience.ts';
import { graphileWorkerVersion, installGraphileWorker } from './graphile-worker-package.ts';
import { MillraceNotifier } from './millrace-notifier.ts';
import type { Notifier } from './notifier.ts';
import { PeerProcess } from './peer-process.ts';
import { Producers, partitions, sendBacklog } from './producers.ts';
import type { DeliveryScenario } from './scenarios.ts';

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

const statusColumn = {
  name: 'status-column',
  program: 'status-column.ts',
  description:
    'a table with a status column: inserted in batches, claimed 500 at a time with FOR UPDATE SKIP LOCKED by four pickers, pushed, marked as pushed in batches',
};
const graphileWorker = {
  name: 'graphile-worker',
  program: 'graphile-worker.ts',
  description: `graphile-worker ${graphileWorkerVersion}: a job an event, added in batches, worked off 64 at once by Millrace's own sender`,
};

export const deliveryPeers: readonly string[] = [statusColumn.name, graphileWorker.name];
const million = 1e6;
const warmupMs = 5000;
/** How long what has been sent may still be under way. */
const patienceMs = 60_000;
const backlogPatienceMs = 300_000;
/** Of a backlog, by shares: before, everything gets under way; after, some have nothing more to do. */
const measuredShares = [0.1, 0.9] as const;

/** Who delivers to streams, and who to a receiver; and who was asked for and cannot. */
function notifiersOf({ millrace, scenarios, peers }: DeliveryRun) {
  const own = new MillraceNotifier(millrace);
  const notifiers: Record<DeliveryScenario['to'], Notifier[]> = { streams: [own], receiver: [own] };
  const absent: Record<string, string> = {};
  if (peers.includes(statusColumn.name)) notifiers.streams.push(new PeerProcess(millrace, statusColumn));
  if (peers.includes(graphileWorker.name) && scenarios.some(({ to }) => to === 'receiver')) {
    try {
      installGraphileWorker();
      notifiers.receiver.push(new PeerProcess(millrace, graphileWorker));
    } catch (error) {
      absent[graphileWorker.name] = (error as Error).message;
    }
  }
  return { notifiers, absent };
}

export async function measureDelivery(run: DeliveryRun): Promise<Measured> {
  const { millrace, scenarios, rounds, log, seconds, snapshotMinutes } = run;
  const { notifiers, absent } = notifiersOf(run);
  const samples = new Samples();
  for (const scenario of scenarios) {
    for (let round = 1; round <= rounds; round++) {
      for (const notifier of notifiers[scenario.to]) {
        const topic = `${scenario.name}-${notifier.name}-${round}`;
        await createTopic(millrace, topic);
        const sample = await withAudience(scenario, notifier, topic, audience =>
          measure(run, { scenario, notifier, audience, topic }),
        ).finally(() => deleteTopic(millrace, topic));
        log(`${scenario.name} ${round} ${notifier.name.padEnd(14)} ${shown(sample)}`);
        samples.add(scenario.name, notifier.name, sample);
      }
    }
  }
  const measured = [...new Set(scenarios.flatMap(({ to }) => notifiers[to]))];
  return {
    results: samples.results(scenarios, measured),
    systems: Object.fromEntries(measured.map(({ name, description }) => [name, description])),
    absent,
    settings: { millrace: { measured: `${seconds} s each`, snapshot: `held for ${snapshotMinutes} minutes` } },
  };
}

async function withAudience<T>(
  { to, connections }: DeliveryScenario,
  notifier: Notifier,
  topic: string,
  work: (audience: Audience) => Promise<T>,
): Promise<T> {
  const receiver = to === 'receiver' ? await Audience.receive(connections) : undefined;
  await notifier.start(topic, receiver && `http://127.0.0.1:${receiver.port}/hook`);
  const audience = receiver ?? (await Audience.connect(notifier.url, connections));
  try {
    return await work(audience);
  } finally {
    await audience.leave();
    await notifier.stop();
  }
}

interface Subject {
  readonly scenario: DeliveryScenario;
  readonly notifier: Notifier;
  readonly audience: Audience;
  readonly topic: string;
}

type Figures = Record<string, number> & Sample;

async function measure(run: DeliveryRun, subject: Subject): Promise<Figures> {
  const { scenario, notifier, audience, topic } = subject;
  const eventTopic = { bootstrap: run.millrace.bootstrap, topic, users: scenario.connections };
  if (scenario.work === 'idle') {
    await delay(warmupMs);
    return { rss_mb: residentMb(notifier.processes) };
  }
  if (scenario.work === 'backlog') {
    await notifier.pause();
    await sendBacklog(eventTopic, scenario.events);
    return drained(run, subject);
  }
  const producers = await Producers.start(eventTopic, scenario.rate);
  try {
    await delay(warmupMs);
    const sample = await measureWhileSent(run, subject);
    await producers.stop();
    await audience.until(() => audience.all >= producers.sent, patienceMs).catch(() => {}); // what is missing is told
    return {
      ...sample,
      ...outcome(subject, producers.sent),
      sent_events: producers.sent,
      sending_s: producers.seconds,
    };
  } finally {
    await producers.stop();
  }
}

const outcome = ({ notifier, audience }: Subject, sent: number) => ({
  rss_mb: residentMb(notifier.processes),
  lost_events: sent - audience.all,
  repeated_events: audience.repeated,
});

async function drained(run: DeliveryRun, subject: Subject): Promise<Figures> {
  const { scenario, notifier, audience } = subject;
  const { events } = scenario;
  audience.reset();
  const spent = spending(run, subject);
  await notifier.resume();
  await audience.until(() => audience.all >= events, backlogPatienceMs).catch(() => {});
  return {
    deliveries_per_s: audience.rateBetween(...measuredShares, events),
    ...spent(audience.events),
    ...outcome(subject, events),
  };
}

async function measureWhileSent(run: DeliveryRun, subject: Subject): Promise<Sample> {
  const { audience, notifier, scenario } = subject;
  if (scenario.work === 'storm') return { recovered_ms: await audience.drop() };
  const before = await rate(run, subject);
  if (scenario.work === 'rate') return before;
  const client = new pg.Client({ connectionString: notifier.databaseUrl });
  await client.connect();
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await client.query('SELECT count(*) FROM pg_class');
    await delay(run.snapshotMinutes * 60_000);
    const held = await rate(run, subject);
    return { ...held, rate_ratio: held.deliveries_per_s! / before.deliveries_per_s! };
  } finally {
    await client.end();
  }
}

async function rate(run: DeliveryRun, subject: Subject): Promise<Sample> {
  const { audience } = subject;
  audience.reset();
  const spent = spending(run, subject);
  const began = performance.now();
  await delay(run.seconds * 1000);
  const { events, latencies } = audience;
  return {
    deliveries_per_s: events / ((performance.now() - began) / 1000),
    p50_ms: latencies.quantile(0.5),
    p95_ms: latencies.quantile(0.95),
    p99_ms: latencies.quantile(0.99),
    ...spent(events),
  };
}

/** Of the broker and, where that is another, of who delivers; of Postgres; of the bench's producers, which are this process, and audience. */
function spending({ millrace }: DeliveryRun, { notifier, audience }: Subject): (events: number) => Sample {
  const { broker, postgres } = millrace.payers;
  const others = notifier.processes.roots.every(pid => broker.roots.includes(pid)) ? [] : [notifier.processes];
  const clientCpu = (): number => {
    const { user, system } = process.cpuUsage();
    return (user + system) / million + audience.cpuSeconds;
  };
  const [cost, before] = [startCpu([broker, ...others], postgres), clientCpu()];
  return events => ({
    ...cost(events),
    client_cpu_s_per_million: ((clientCpu() - before) / events) * million,
  });
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
