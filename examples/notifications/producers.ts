// Three services that have something to tell: jobs, connections, followers. Each sends its share of the rate, in batches
// of a hundredth of a second, with acks=all.
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { Service, services } from './service.ts';

export interface ProducersOptions {
  readonly broker: string;
  readonly topic: string;
  readonly eventsPerSecond: number;
  readonly users: number;
  /** Users below this have a connection. */
  readonly connected: number;
  /** Of the events, how many are for these. */
  readonly connectedShare: number;
}

export interface Producers {
  /** Since the start: all, and those for connected users. */
  readonly sent: { all: number; connected: number };
  stop(): Promise<void>;
}

const tickMs = 10;

export async function startProducers(options: ProducersOptions): Promise<Producers> {
  const kafka = new Kafka({ brokers: [options.broker], logLevel: logLevel.ERROR });
  const sent = { all: 0, connected: 0 };
  const running = await Promise.all(services.map(name => startProducer(kafka, new Service(name), options, sent)));
  return {
    sent,
    async stop() {
      await Promise.all(running.map(stop => stop()));
    },
  };
}

async function startProducer(
  kafka: Kafka,
  service: Service,
  options: ProducersOptions,
  sent: Producers['sent'],
): Promise<() => Promise<void>> {
  const { topic, users, connected, connectedShare } = options;
  const perSecond = options.eventsPerSecond / services.length;
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, maxInFlightRequests: 1 });
  await producer.connect();
  const began = performance.now();
  const next = (): { key: string; value: string } => {
    const online = Math.random() < connectedShare;
    const user = Math.floor(Math.random() * (online ? connected : users));
    sent.all++;
    if (user < connected) sent.connected++;
    const notification = service.next(user);
    return { key: notification.user_id, value: JSON.stringify(notification) };
  };
  let sending: Promise<unknown> = Promise.resolve();
  let idle = true;
  const timer = setInterval(() => {
    if (!idle) return; // what is due comes with the next batch
    const due = Math.floor(((performance.now() - began) / 1000) * perSecond) - service.made;
    if (due <= 0) return;
    idle = false;
    const messages = Array.from({ length: due }, next);
    sending = producer.send({ topic, messages }).finally(() => {
      idle = true;
    });
  }, tickMs);
  return async () => {
    clearInterval(timer);
    await sending;
    await producer.disconnect();
  };
}
