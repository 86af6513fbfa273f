// The generator: every interval a job makes the metrics of a few devices and sends them in batches, as many jobs and
// batches at a time as it is told.
import { createServer, type Server } from 'node:http';
import { ProduceAcks, Producer, stringSerializers } from '@platformatic/kafka';
import { type Metric, messageOf, randomDevice, randomMetric } from './metric.ts';
import type { DemoSettings } from './settings.ts';

/** Metrics that may come again. */
const remembered = 100_000;

export class MetricsProducer {
  readonly #settings: DemoSettings;
  readonly #producer: Producer<string, string, string, string>;
  readonly #devices: readonly string[];
  readonly #sent: Metric[] = [];
  readonly #jobs = new Set<Promise<void>>();
  #health: Server | undefined;
  #timer: NodeJS.Timeout | undefined;
  #inFlight = 0;
  readonly #waiting: (() => void)[] = [];
  /** Metrics that were acknowledged. */
  produced = 0;
  failure: Error | undefined;

  constructor(settings: DemoSettings, bootstrap: string) {
    this.#settings = settings;
    this.#producer = new Producer({
      clientId: 'metrics',
      bootstrapBrokers: [bootstrap],
      serializers: stringSerializers,
    });
    this.#devices = Array.from({ length: settings.devices }, randomDevice);
  }

  async start(): Promise<string> {
    const server = createServer((request, response) => {
      const up = request.url === '/health';
      response.writeHead(up ? (this.failure ? 503 : 200) : 404, { 'content-type': 'application/json' });
      response.end(up ? JSON.stringify({ produced: this.produced, error: this.failure?.message }) : '');
    });
    await new Promise<void>(resolve => server.listen(this.#settings.healthPort, '127.0.0.1', resolve));
    this.#health = server;
    this.#timer = setInterval(() => this.#begin(), this.#settings.publishIntervalMs);
    const { port } = server.address() as { port: number };
    return `http://127.0.0.1:${port}/health`;
  }

  /** Sends no more, and waits for what is under way. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#jobs);
    await this.#producer.close();
    await new Promise(resolve => this.#health?.close(resolve));
  }

  #begin(): void {
    if (this.#jobs.size >= this.#settings.queueConcurrency) return;
    const job = this.#publish()
      .catch((error: Error) => {
        this.failure = error;
      })
      .finally(() => this.#jobs.delete(job));
    this.#jobs.add(job);
  }

  async #publish(): Promise<void> {
    const { minMetrics, maxMetrics, minDevices, maxDevices, batchSize, schemas } = this.#settings;
    const count = between(minMetrics, maxMetrics);
    const devices = Array.from({ length: Math.max(1, between(minDevices, maxDevices)) }, () =>
      this.#devices.length > 0 ? this.#devices[between(0, this.#devices.length - 1)]! : randomDevice(),
    );
    const now = Date.now();
    const sending: Promise<void>[] = [];
    for (let sent = 0; sent < count; sent += batchSize) {
      await this.#room();
      const messages = Array.from({ length: Math.min(batchSize, count - sent) }, (_, i) => {
        const metric = this.#next(devices[(sent + i) % devices.length]!, now);
        return { topic: 'metrics', ...messageOf(metric, schemas) };
      });
      sending.push(this.#send(messages));
    }
    await Promise.all(sending);
  }

  #next(device: string, now: number): Metric {
    const fresh = randomMetric(device, now);
    const { repeats } = this.#settings;
    if (repeats === 0) return fresh;
    const known = this.#sent.length;
    if (known > 0 && Math.random() < repeats) {
      const { deviceId, metricName, publishedAt } = this.#sent[between(0, known - 1)]!;
      return { ...fresh, deviceId, metricName, publishedAt };
    }
    if (known < remembered) this.#sent.push(fresh);
    else this.#sent[between(0, remembered - 1)] = fresh;
    return fresh;
  }

  async #send(messages: { topic: string; key: string; value: string }[]): Promise<void> {
    try {
      await this.#producer.send({ messages, acks: ProduceAcks.ALL });
      this.produced += messages.length;
    } finally {
      this.#inFlight--;
      this.#waiting.shift()?.();
    }
  }

  /** Resolves when fewer batches are in flight than may be. */
  async #room(): Promise<void> {
    while (this.#inFlight >= this.#settings.maxInFlight) {
      await new Promise<void>(resolve => this.#waiting.push(resolve));
    }
    this.#inFlight++;
  }
}

const between = (least: number, most: number): number => least + Math.floor(Math.random() * (most - least + 1));
