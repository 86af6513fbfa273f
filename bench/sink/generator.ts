// The pipeline's producer, a program of its own: metrics made as it goes. node --import tsx generator.ts name=value…
//   rate=N   so many a second, open loop: a marker's clock starts when it was due; sent every 5 ms
//   rate=0   as many as the sink takes: no more than `ahead` records are in the topic that are not in the table
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { TopicWriter } from '../clients/topic-writer.ts';
import { Batching, MetricStream, partitions } from './stream.ts';

const values = new Map(process.argv.slice(2).map(pair => pair.split(/=(.*)/s).slice(0, 2) as [string, string]));
const number = (name: string): number => Number(values.get(name));
const rate = number('rate');
const lingerMs = 5;
/** Records generated between two looks at the clock. */
const chunk = 1000;
const lagPollMs = 100;

const writer = await TopicWriter.open(values.get('bootstrap')!, values.get('topic')!, partitions);
const batching = new Batching(number('schemas') === 1);
const stream = new MetricStream({ repeats: number('repeats'), seed: 7, markerEvery: rate > 0 ? 200 : 1000 });
const wallClock = (): number => performance.timeOrigin + performance.now();
const began = wallClock();
const ends = began + number('seconds') * 1000;
let sent = 0;

async function send(due: number): Promise<void> {
  const placed = stream.next(due);
  const batch = batching.add(placed, Math.floor(due));
  sent++;
  if (batch) await writer.write(placed.partition, batch);
}

async function sendAtRate(): Promise<void> {
  for (let now = began; now < ends; now = wallClock()) {
    while (began + (sent * 1000) / rate <= now) await send(began + (sent * 1000) / rate);
    for (let partition = 0; partition < partitions; partition++) {
      const batch = batching.take(partition);
      if (batch) await writer.write(partition, batch);
    }
    await delay(lingerMs);
  }
}

/** Records that the sink has not written yet. */
async function lag(): Promise<number> {
  const answer = await fetch(values.get('sink')!);
  if (!answer.ok) throw new Error(`${values.get('sink')}: ${answer.status}`);
  return ((await answer.json()) as { lag: number }).lag;
}

async function sendWhatIsTaken(): Promise<void> {
  const ahead = number('ahead');
  while (wallClock() < ends) {
    const room = ahead - (await lag());
    const until = wallClock() + lagPollMs;
    for (let more = 0; more < room && wallClock() < until; more += chunk) {
      for (let i = 0; i < chunk; i++) await send(wallClock());
      await nextTurn();
    }
    await delay(Math.max(0, until - wallClock()));
  }
}

await (rate > 0 ? sendAtRate() : sendWhatIsTaken());
await writer.close();
const { userCPUTime, systemCPUTime } = process.resourceUsage();
console.log(JSON.stringify({ records: sent, cpu_s: (userCPUTime + systemCPUTime) / 1e6 }));
