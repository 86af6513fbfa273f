// What is measured: a scenario is one piece of work in one shape, done by one client. Names follow one pattern,
// work-shape-client, so that results of different runs can be laid side by side.

export type Work = 'produce' | 'consume-warm' | 'consume-tail' | 'consume-cold' | 'latency';
export type Client = 'librdkafka' | 'java';
export type Codec = 'none' | 'lz4' | 'zstd';

export interface Scenario {
  readonly name: string;
  readonly work: Work;
  readonly client: Client;
  readonly recordBytes: number;
  readonly partitions: number;
  readonly producers: number;
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
    seconds: 5,
    lingerMs: 5,
    rate: 0,
    storedBytes: 300 * MB,
    codec: 'none',
    idempotent: false,
    batchRecords: undefined,
    batchBytes: undefined,
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

/** What can be asked for on the command line, besides a scenario's own name or the beginning of one. */
export const groups: Readonly<Record<string, readonly Scenario[]>> = {
  produce: shapes('produce', 'librdkafka'),
  consume: [...shapes('consume-warm', 'librdkafka'), ...shapes('consume-tail', 'librdkafka')],
  java: [
    ...shapes('produce', 'java'),
    ...shapes('consume-warm', 'java'),
    scenario('latency-5000-1KiB-1p-java', 'latency', { recordBytes: 1024, rate: 5000, client: 'java', seconds: 10 }),
  ],
  'consume-cold': shapes('consume-cold', 'librdkafka'),
  latency: [
    scenario('latency-5000-1KiB-1p-librdkafka', 'latency', { recordBytes: 1024, rate: 5000, lingerMs: 5 }),
    scenario('latency-5000-100B-1p-librdkafka', 'latency', { rate: 5000, lingerMs: 5 }),
    scenario('latency-5000-1KiB-1p-linger0-librdkafka', 'latency', { recordBytes: 1024, rate: 5000, lingerMs: 0 }),
  ],
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
