// What is measured of sinks: a topic that lies there, drained into the metrics table; and the whole pipeline, from a
// generator to rows that can be seen.

export type SinkWork = 'drain' | 'pipeline' | 'latency';

export interface SinkScenario {
  readonly name: string;
  readonly work: SinkWork;
  readonly mode: 'upsert' | 'insert';
  /** Share of records whose key came before. */
  readonly repeats: number;
  /** Kafka Connect's schemas beside every key and value; plain JSON without. */
  readonly schemas: boolean;
  /** latency: records a second. */
  readonly rate: number;
  /** drain: the sink reads the topic as one of a remote Kafka, which its own Millrace is. No peer does that. */
  readonly remote: boolean;
}

/** How much of it, as the command line says. */
export interface SinkSizes {
  /** drain: records in the topic. */
  readonly records: number;
  /** pipeline, latency: how long each is measured. */
  readonly seconds: number;
  /** pipeline, latency: how long it runs before. */
  readonly warmupSeconds: number;
}

function scenario(work: SinkWork, shape: 'fresh' | 'repeats' | 'insert', schemas: boolean, rate = 0): SinkScenario {
  const words = [work === 'drain' ? 'sink' : 'pipeline', shape, schemas ? 'schemas' : 'plain', ...(rate ? [rate] : [])];
  return {
    name: words.join('-'),
    work,
    mode: shape === 'insert' ? 'insert' : 'upsert',
    repeats: shape === 'repeats' ? 0.5 : 0,
    schemas,
    rate,
    remote: false,
  };
}

export const sinkScenarios: readonly SinkScenario[] = [
  ...(['fresh', 'repeats', 'insert'] as const).flatMap(shape => [
    scenario('drain', shape, false),
    scenario('drain', shape, true),
  ]),
  ...[false, true].map(schemas => {
    const drained = scenario('drain', 'fresh', schemas);
    return { ...drained, name: drained.name.replace('sink', 'sink-remote'), remote: true };
  }),
  scenario('pipeline', 'fresh', false),
  scenario('pipeline', 'repeats', true),
  scenario('latency', 'fresh', true, 20_000),
];

/** The word stands for all of them, as a beginning does for those that begin with it. */
export function findSinkScenarios(asked: readonly string[]): SinkScenario[] {
  return sinkScenarios.filter(({ name }) =>
    asked.some(word => word === 'sink' || name === word || (word !== 'sink' && name.startsWith(`${word}-`))),
  );
}
