// The demo's users: a process of its own with many event streams, each as an EventSource reads it. Arguments: the URL of
// Millrace, and how many. Reports over the channel to its parent; told `drop` by it, all of them lose their connections.
import { Agent, type IncomingMessage, request } from 'node:http';
import { Histogram } from './histogram.ts';
import { type ClientReport, type Notification, now } from './notification.ts';

const [url = '', count = '0'] = process.argv.slice(2);
const agent = new Agent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY });
const openedAtOnce = 50;

let connections = 0;
let duplicates = 0;
let lost = 0;
let reconnects = 0;
let events = 0;
let latencies = new Histogram();
let droppedAt: number | undefined;
let recoveredMs: number | undefined;

/** What has come of one producer, in whatever order. */
interface Received {
  /** All below have come. */
  next: number;
  highest: number;
  /** Those that have come from `next` on. */
  readonly ahead: Set<number>;
}

class User {
  readonly #name: string;
  readonly #received = new Map<string, Received>();
  #response: IncomingMessage | undefined;
  #lastId = '';
  #left = '';

  constructor(name: string) {
    this.#name = name;
  }

  /** Resolves once the first answer has begun. */
  connect(): Promise<void> {
    return new Promise(resolve => {
      const headers = this.#lastId === '' ? {} : { 'last-event-id': this.#lastId };
      const outgoing = request(`${url}/v1/stream?subscriber=${this.#name}`, { agent, headers });
      outgoing.on('response', response => {
        resolve();
        this.#read(response);
      });
      outgoing.on('error', () => {
        resolve();
        this.#again();
      });
      outgoing.end();
    });
  }

  #read(response: IncomingMessage): void {
    if (response.statusCode !== 200) {
      response.resume();
      this.#again();
      return;
    }
    connections++;
    if (droppedAt !== undefined && connections === users.length) {
      recoveredMs = now() - droppedAt;
      droppedAt = undefined;
    }
    this.#response = response;
    this.#left = '';
    response.setEncoding('utf8');
    response.on('data', (text: string) => this.#take(text));
    response.on('error', () => {});
    response.on('close', () => {
      connections--;
      this.#again();
    });
  }

  drop(): void {
    this.#response?.destroy();
  }

  #again(): void {
    reconnects++;
    setTimeout(() => void this.connect(), 500 + Math.random() * 1000);
  }

  #take(text: string): void {
    const blocks = (this.#left + text).split('\n\n');
    this.#left = blocks.pop()!;
    for (const block of blocks) {
      const id = /^id: (.*)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (id === undefined || data === undefined) continue;
      this.#lastId = id;
      this.#check(JSON.parse(data) as Notification);
    }
  }

  #check({ producer, n, sent_at }: Notification): void {
    let received = this.#received.get(producer);
    if (received === undefined) {
      received = { next: 0, highest: -1, ahead: new Set() };
      this.#received.set(producer, received);
    }
    const { ahead } = received;
    if (n < received.next || ahead.has(n)) {
      duplicates++;
      return;
    }
    // What has been jumped over is lost until it comes.
    if (n > received.highest) {
      lost += n - received.highest - 1;
      received.highest = n;
    } else lost--;
    ahead.add(n);
    while (ahead.delete(received.next)) received.next++;
    events++;
    latencies.add(now() - sent_at);
  }
}

const users = Array.from({ length: Number(count) }, (_, i) => new User(`user-${i}`));
for (let i = 0; i < users.length; i += openedAtOnce) {
  await Promise.all(users.slice(i, i + openedAtOnce).map(user => user.connect()));
}

setInterval(() => {
  const counts = { connections, events, duplicates, lost, reconnects };
  const report: ClientReport = { ...counts, recoveredMs, latencies: latencies.buckets };
  process.send?.(report);
  [events, duplicates, lost, reconnects] = [0, 0, 0, 0];
  latencies = new Histogram();
  recoveredMs = undefined;
}, 1000);
process.on('message', message => {
  if (message !== 'drop') return;
  droppedAt = now();
  for (const user of users) user.drop();
});
process.on('disconnect', () => process.exit());
