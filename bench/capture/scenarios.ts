// What is measured of capture: a backlog that is drained, changes as they come, kafka.produce, one large transaction.

export type CaptureWork = 'backlog' | 'live' | 'produce' | 'transaction';

export interface CaptureScenario {
  readonly name: string;
  readonly work: CaptureWork;
  /** backlog: of ten thousand changes, how many are updates and how many deletes; the others are inserts. */
  readonly updates: number;
  readonly deletes: number;
  /** live: changes a second. */
  readonly rate: number;
  /** live, produce: changes or records in a transaction. */
  readonly perTransaction: number;
}

/** How much of it, as the command line says. */
export interface CaptureSizes {
  /** backlog: changes. */
  readonly changes: number;
  /** transaction: rows. */
  readonly transactionRows: number;
  /** live, produce: how long each is measured. */
  readonly seconds: number;
  /** live: how long a system runs before anything is measured. */
  readonly warmupSeconds: number;
}

const scenario = (name: string, work: CaptureWork, rest: Partial<CaptureScenario> = {}): CaptureScenario => ({
  name,
  work,
  updates: 0,
  deletes: 0,
  rate: 0,
  perTransaction: 1,
  ...rest,
});

export const captureScenarios: readonly CaptureScenario[] = [
  scenario('backlog-insert', 'backlog'),
  scenario('backlog-mixed', 'backlog', { updates: 1500, deletes: 500 }),
  scenario('live-1000', 'live', { rate: 1000 }),
  scenario('live-5000', 'live', { rate: 5000, perTransaction: 10 }),
  scenario('live-20000', 'live', { rate: 20_000, perTransaction: 40 }),
  scenario('sql-produce-1', 'produce'),
  scenario('sql-produce-100', 'produce', { perTransaction: 100 }),
  scenario('transaction', 'transaction'),
];

/** The word stands for all of them, as a beginning does for those that begin with it. */
export function findCaptureScenarios(asked: readonly string[]): CaptureScenario[] {
  return captureScenarios.filter(({ name }) =>
    asked.some(word => word === 'capture' || name === word || name.startsWith(`${word}-`)),
  );
}
