// What is measured: a scenario is one piece of work in one shape, done by one client. Names follow one pattern,
// work-shape-client, so that results of different runs can be laid side by side.

export type Work = 'produce' | 'consume-warm' | 'consume-tail' | 'consume-cold' | 'latency' | 'startup';
export type Client = 'librdkafka' | 'java';
export type Codec = 'none' | 'lz4' | 'zstd';

export interface Scenario {
  readonly name: string;
  readonly work: Work;
  readonly client: Client;
  readonly recordBytes: number;
  readonly partitions: number;
  readonly producers: number;
  /** Each reads everything. */
  readonly consumers: number;
  /** latency: consumers that wait for records on another topic, and get none. */
  readonly idleConsumers: number;
  /** How long producers produce, or the longest a consumer consumes. */
  readonly seconds: number;
  readonly lingerMs: number;
  /** latency: records a second. */
  readonly rate: number;
  /** consume-warm, consume-cold: payload bytes that lie there to be read. */
  readonly storedBytes: number;
  readonly codec: Codec;
  readonly idempotent: boolean;
  /** 1 is a client that does not batch; undefined is the client's own default. */
  readonly batchRecords: number | undefined;
  readonly batchBytes: number | undefined;
  /** Requests in flight on a connection; undefined is the client's own default. */
  readonly inFlight: number | undefined;
}

const MB = 1e6;

const shape = (bytes: number, partitions: number): string =>
  `${bytes % 1024 === 0 ? `${bytes / 1024}KiB` : `${bytes}B`}-${partitions}p`;

function scenario(name: string, work: Work, rest: Partial<Scenario> = {}): Scenario {
  return {
    name,
    work,
    client: 'librdkafka',
    recordBytes: 100,
    partitions: 1,
    producers: 1,
    consumers: 1,
    idleConsumers: 0,
    seconds: 5,
    lingerMs: 5,
    rate: 0,
    storedBytes: 300 * MB,
    codec: 'none',
    idempotent: false,
    batchRecords: undefined,
    batchBytes: undefined,
    inFlight: undefined,
    ...rest,
  };
}

function shapes(work: Work, client: Client): Scenario[] {
  return [100, 1024].flatMap(recordBytes =>
    [1, 6].map(partitions =>
      scenario(`${work}-${shape(recordBytes, partitions)}-${client}`, work, { recordBytes, partitions, client }),
    ),
  );
}

const KiB = 1024;
const librdkafka = (work: Work, words: string, rest: Partial<Scenario>): Scenario =>
  scenario(`${work}-${words}-librdkafka`, work, rest);

const produce = shapes('produce', 'librdkafka');
const consume = [...shapes('consume-warm', 'librdkafka'), ...shapes('consume-tail', 'librdkafka')];
const cold = shapes('consume-cold', 'librdkafka');
const latency = [
  librdkafka('latency', '5000-1KiB-1p', { recordBytes: KiB, rate: 5000 }),
  librdkafka('latency', '5000-100B-1p', { rate: 5000 }),
  librdkafka('latency', '5000-1KiB-1p-linger0', { recordBytes: KiB, rate: 5000, lingerMs: 0 }),
];
const java = [
  ...shapes('produce', 'java'),
  ...shapes('consume-warm', 'java'),
  scenario('latency-5000-1KiB-1p-java', 'latency', { recordBytes: KiB, rate: 5000, client: 'java', seconds: 10 }),
];
/** More partitions, producers, sizes, codecs and rates. */
const wide = [
  librdkafka('produce', '10KiB-1p', { recordBytes: 10 * KiB }),
  librdkafka('produce', '100B-50p', { partitions: 50 }),
  librdkafka('produce', '1KiB-50p', { recordBytes: KiB, partitions: 50 }),
  librdkafka('produce', '1KiB-6p-10producers', { recordBytes: KiB, partitions: 6, producers: 10 }),
  librdkafka('produce', '1KiB-6p-100producers', { recordBytes: KiB, partitions: 6, producers: 100 }),
  librdkafka('produce', '1KiB-1p-lz4', { recordBytes: KiB, codec: 'lz4' }),
  librdkafka('produce', '1KiB-1p-zstd', { recordBytes: KiB, codec: 'zstd' }),
  librdkafka('produce', '1KiB-1p-idempotent', { recordBytes: KiB, idempotent: true }),
  scenario('unbatched-100-librdkafka', 'produce', {
    partitions: 6,
    producers: 100,
    lingerMs: 0,
    batchRecords: 1,
    inFlight: 5,
  }),
  librdkafka('latency', '1000-1KiB-1p', { recordBytes: KiB, rate: 1000 }),
  librdkafka('latency', '50000-100B-6p', { partitions: 6, rate: 50_000 }),
];

/** Several that read the same. */
const ten = { recordBytes: KiB, partitions: 6, consumers: 10, storedBytes: 100 * MB };
const fanOut = [
  librdkafka('consume-warm', '1KiB-6p-10consumers', ten),
  librdkafka('consume-tail', '1KiB-6p-10consumers', ten),
  librdkafka('consume-cold', '1KiB-6p-10consumers', ten),
  librdkafka('latency', '1000-1KiB-1p-100consumers', { recordBytes: KiB, rate: 1000, consumers: 100 }),
  librdkafka('latency', '100-1KiB-1p-linger0', { recordBytes: KiB, rate: 100, lingerMs: 0 }),
  librdkafka('latency', '100-1KiB-1p-linger0-100consumers', {
    recordBytes: KiB,
    rate: 100,
    lingerMs: 0,
    consumers: 100,
  }),
];
const startup = [scenario('startup-librdkafka', 'startup', { recordBytes: KiB, storedBytes: 100 * MB, lingerMs: 0 })];
/** For a comparison in two minutes. */
const regression = [
  ...produce.filter(({ partitions }) => partitions === 1),
  ...consume.filter(({ name }) => name === 'consume-warm-1KiB-1p-librdkafka'),
  ...latency.filter(({ name }) => name === 'latency-5000-1KiB-1p-librdkafka'),
];
/** A thousand consumers wait for a topic that nobody writes to, while records pass through another. */
const longpoll = [1000, 5000].map(rate =>
  scenario(`longpoll-1000-${rate}-1KiB-1p-librdkafka`, 'latency', { recordBytes: KiB, rate, idleConsumers: 1000 }),
);

/** As pg-queue-pubsub-benchmark has it: 10 writers, 4 partitions, 5 groups that read all of it meanwhile. */
const pubsub = [100, 200].map(batchRecords =>
  scenario(`pubsub-1KiB-4p-batch${batchRecords}-librdkafka`, 'consume-tail', {
    recordBytes: KiB,
    partitions: 4,
    producers: 10,
    consumers: 5,
    batchRecords,
  }),
);

/** What can be asked for on the command line, besides a scenario's own name or the beginning of one. */
export const groups: Readonly<Record<string, readonly Scenario[]>> = {
  produce,
  consume,
  'consume-cold': cold,
  latency,
  wide,
  longpoll,
  'fan-out': fanOut,
  startup,
  pubsub,
  java,
  regression,
  log: [...produce, ...consume, ...cold, ...latency, ...wide, ...longpoll, ...fanOut, ...startup, ...pubsub, ...java],
};

/** A beginning stands for the scenarios with librdkafka; Java's tools take long, so they are asked for by name. */
const named =
  (word: string) =>
  ({ name, client }: Scenario): boolean =>
    name === word || (name.startsWith(word) && client === 'librdkafka');

export function findScenarios(asked: readonly string[]): Scenario[] {
  const all = new Set(Object.values(groups).flat());
  const found = new Set<Scenario>();
  for (const word of asked) {
    const matches = groups[word] ?? [...all].filter(named(word));
    if (matches.length === 0) {
      throw new Error(`no scenario ${word}; there are ${Object.keys(groups).join(', ')}, or a name from --list`);
    }
    for (const match of matches) found.add(match);
  }
  return [...found];
}
