// What is measured of mirrors: a topic that lies in the source, copied; how far the copy is behind while records come; and
// both sides held against each other.

export type MirrorWork = 'copy' | 'lag' | 'compare';

export interface MirrorScenario {
  readonly name: string;
  readonly work: MirrorWork;
  /** copy, compare: in the topic. */
  readonly records: number;
  /** lag: records a second. */
  readonly rate: number;
}

/** How much of it, as the command line says. */
export interface MirrorSizes {
  /** Instead of the scenario's. */
  readonly records: number | undefined;
  /** lag: how long it is measured. */
  readonly seconds: number;
  /** lag: how long it runs before. */
  readonly warmupSeconds: number;
}

export const recordBytes = 100;
export const partitions = 6;

export const mirrorScenarios: readonly MirrorScenario[] = [
  { name: 'initial-100B', work: 'copy', records: 2_500_000, rate: 0 },
  { name: 'initial-10M-100B', work: 'copy', records: 10_000_000, rate: 0 },
  { name: 'lag-5000', work: 'lag', records: 0, rate: 5000 },
  { name: 'lag-50000', work: 'lag', records: 0, rate: 50_000 },
  { name: 'compare-100B', work: 'compare', records: 2_500_000, rate: 0 },
];

/** The word `mirror` stands for all of them, as a beginning does for those that begin with it. */
export function findMirrorScenarios(asked: readonly string[]): MirrorScenario[] {
  return mirrorScenarios.filter(({ name }) =>
    asked.some(word => word === 'mirror' || name === word || name.startsWith(`${word}-`)),
  );
}
