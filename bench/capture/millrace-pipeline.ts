// Millrace's own captures, those of the configuration file that the bench starts it with: one for each table and format,
// paused but for while they are measured.

import { none } from '../peers/cost.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Processes } from '../processes.ts';
import type { Pipeline } from './pipeline.ts';
import type { CapturedTable, CaptureSource } from './source.ts';

export type Format = 'debezium' | 'plain';

const tables: readonly CapturedTable[] = ['backlog', 'live', 'big'];
const formats: readonly Format[] = ['debezium', 'plain'];
const captureOf = (format: Format, table: CapturedTable): string => `${format}_${table}`;

/** The part `capture` of millrace.yaml. */
export function captureConfiguration(): object {
  const captures = formats.flatMap(format =>
    tables.map(table => [
      captureOf(format, table),
      {
        tables: [`public.${table}`],
        format,
        snapshot: 'never',
        partitions: 1,
        publication: `bench_${captureOf(format, table)}`,
        slot: `bench_${captureOf(format, table)}`,
      },
    ]),
  );
  return { capture: Object.fromEntries(captures) };
}

/** What they publish: each has a publication of its own. */
export const publications: readonly (readonly [string, CapturedTable])[] = formats.flatMap(format =>
  tables.map(table => [`bench_${captureOf(format, table)}`, table] as const),
);

/** All captures begin with the server; none may read what is not measured. */
export async function pauseAll(millrace: Millrace, source: CaptureSource): Promise<void> {
  for (const format of formats) {
    for (const table of tables) {
      const capture = captureOf(format, table);
      await act(millrace, capture, 'pause');
      await source.dropSlot(`bench_${capture}`);
    }
  }
}

export class MillracePipeline implements Pipeline {
  readonly name: string;
  readonly description: string;
  readonly #millrace: Millrace;
  readonly #source: CaptureSource;
  readonly #format: Format;
  #running: string | undefined;

  constructor(millrace: Millrace, source: CaptureSource, format: Format) {
    this.name = format === 'debezium' ? 'millrace' : `millrace-${format}`;
    this.description =
      format === 'debezium' ? "Millrace, Debezium's envelope" : `Millrace, format ${format}: op, data and meta`;
    this.#millrace = millrace;
    this.#source = source;
    this.#format = format;
  }

  slotOf(table: CapturedTable): string {
    return `bench_${captureOf(this.#format, table)}`;
  }

  topicOf(table: CapturedTable): string {
    return `${captureOf(this.#format, table)}.public.${table}`;
  }

  get process(): Processes {
    const { broker } = this.#millrace.payers;
    return broker.roots.length > 0 ? broker : none;
  }

  async start(table: CapturedTable): Promise<void> {
    const capture = captureOf(this.#format, table);
    await this.#source.forget(capture);
    this.#running = capture;
    await act(this.#millrace, capture, 'resume');
  }

  async stop(): Promise<void> {
    const capture = this.#running;
    this.#running = undefined;
    if (capture !== undefined) await act(this.#millrace, capture, 'pause');
  }

  failed(): undefined {
    return undefined;
  }

  async describe(): Promise<Record<string, string>> {
    return { format: this.#format, partitions: '1' };
  }
}

async function act(millrace: Millrace, capture: string, action: 'pause' | 'resume'): Promise<void> {
  const answer = await fetch(`${millrace.http}/api/captures/${capture}/${action}`, { method: 'POST' });
  if (!answer.ok) throw new Error(`${action} ${capture}: ${answer.status} ${await answer.text()}`);
}
