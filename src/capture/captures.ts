// All captures of this Millrace: those of millrace.yaml, those made over HTTP (kafka.pipelines), and the one that serves
// kafka.produce. They run while this broker leads; a part of the server that starts after the log and stops before it.
import { formatLsn, noLsn } from '../postgres/lsn.ts';
import type { GivenDefinitions } from '../runtime/definition.ts';
import { OperationalError } from '../runtime/errors.ts';
import type { Part } from '../runtime/lifecycle.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { type Defined, define, refusing } from '../storage/pipeline-definition.ts';
import { PipelineTurns } from '../storage/pipeline-turns.ts';
import { PipelineError, Pipelines } from '../storage/pipelines.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { Capture, type CaptureContext, type CaptureStatus } from './capture.ts';
import { type CaptureDefinition, readDefinition, readSource } from './definition.ts';
import { type Left, release } from './removal.ts';
import { openSqlCapture, type SqlProduce, sqlCapture } from './sql-capture.ts';

export interface CapturesOptions {
  readonly context: CaptureContext;
  /** What was given at the start. */
  readonly definitions: GivenDefinitions;
  readonly references: ReferenceSources;
  /** What SQL may do, or undefined where kafka.produce is off. */
  readonly produce: SqlProduce | undefined;
}

/** removed: no definition is left, and its slot may still hold back WAL. */
type Origin = 'file' | 'http' | 'sql' | 'removed';

interface Entry extends Defined<CaptureDefinition> {
  readonly name: string;
  readonly origin: Origin;
  /** The file or flag that gave it. */
  readonly where?: string;
  readonly written: unknown;
  /** The last there was. */
  capture: Capture | undefined;
  paused: boolean;
}

export interface ListedCapture extends CaptureStatus {
  readonly origin: Origin;
}

export interface DescribedCapture extends ListedCapture {
  /** As it was written: secrets are references. */
  readonly definition: unknown;
}

interface StoredCapture {
  readonly name: string;
  readonly slot: string;
  readonly slotMade: boolean;
  readonly publication: string | null;
  readonly source: string | null;
  readonly paused: boolean;
}

const storedColumns = `name, slot_name AS slot, slot_made AS "slotMade", publication_name AS publication, source, paused`;

export class Captures implements Part {
  readonly name = 'captures';
  readonly #options: CapturesOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #pipelines: Pipelines;
  readonly #lane: WriteLane;
  readonly #turns = new PipelineTurns();

  /** Throws an OperationalError for a definition of the start that cannot be understood. */
  constructor(options: CapturesOptions) {
    this.#options = options;
    const { context, definitions } = options;
    this.#pipelines = new Pipelines('capture', context.pool, context.term);
    this.#lane = new WriteLane(context.pool, context.term);
    for (const [name, { written, where }] of Object.entries(definitions)) {
      const definition = this.#read(name, written, where);
      const clash = this.#clash(definition);
      if (clash) throw clash;
      this.#add({ name, origin: 'file', where, written, definition });
    }
  }

  /** Begins them; that each reaches its source is not waited for. */
  async start(): Promise<void> {
    const { context, produce } = this.#options;
    for (const { name, definition: written } of await this.#pipelines.list()) {
      if (this.#entries.has(name)) {
        context.logger.warn(
          { capture: name },
          'the capture of the file hides one of the same name that was made over HTTP',
        );
      } else this.#add({ name, origin: 'http', written });
    }
    if (produce !== undefined) this.#add({ name: sqlCapture, origin: 'sql', written: undefined });
    const { rows } = await context.pool.query<StoredCapture>(
      `SELECT ${storedColumns} FROM kafka.captures ORDER BY name`,
    );
    for (const { name, slot, paused } of rows) {
      if (!this.#entries.has(name) && name !== sqlCapture) {
        this.#add({ name, origin: 'removed', written: undefined });
        context.logger.warn({ capture: name, slot, hint: removedHint(name) }, removedReason);
      }
      const entry = this.#entries.get(name);
      if (entry) entry.paused = paused && entry.origin !== 'sql';
    }
    for (const entry of this.#entries.values()) {
      if (entry.origin === 'http') this.#define(entry); // those that are paused too: they keep their slots
      if (!entry.paused) await this.#begin(entry);
    }
    if (produce === undefined) await openSqlCapture(context, produce);
  }

  status(): ListedCapture[] {
    return Array.from(this.#entries.values(), statusOf);
  }

  describe(name: string): DescribedCapture {
    const entry = this.#known(name);
    // What was not understood may have a password in it.
    return { ...statusOf(entry), definition: entry.broken ? undefined : entry.written };
  }

  async create(name: string, written: unknown): Promise<DescribedCapture> {
    return this.#turns.take(name, async () => {
      const there = this.#entries.get(name);
      if (there !== undefined || name === sqlCapture) {
        const hint = there?.origin === 'removed' ? removedHint(name) : 'delete it first, or choose another name';
        throw new PipelineError('exists', `there is a capture ${name} already`, hint);
      }
      const definition = refusing(() => this.#read(name, written, undefined));
      const clash = this.#clash(definition);
      if (clash) throw new PipelineError('exists', clash.message, clash.hint);
      const entry = this.#add({ name, origin: 'http', written, definition });
      try {
        await this.#pipelines.add(name, written);
      } catch (error) {
        this.#entries.delete(name);
        throw error;
      }
      await this.#begin(entry);
      return this.describe(name);
    });
  }

  /** Ends it for good, with its slot, publication and positions. Returns what of them is left; topics stay. */
  async delete(name: string): Promise<{ left: readonly Left[] }> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.origin === 'file') throw given(entry);
      if (entry.origin === 'sql')
        throw new PipelineError('state', 'that capture serves kafka.produce', 'set sql.produce to off');
      await entry.capture?.stop();
      const { rows } = await this.#options.context.pool.query<StoredCapture>(
        `SELECT ${storedColumns} FROM kafka.captures WHERE name = $1`,
        [name],
      );
      const left = rows[0] ? await this.#release(rows[0]) : [];
      await this.#lane.transaction(client => client.query('DELETE FROM kafka.captures WHERE name = $1', [name]));
      await this.#pipelines.remove(name);
      this.#entries.delete(name);
      return { left };
    });
  }

  /** Stops a capture until it is resumed, over restarts of Millrace. */
  async pause(name: string): Promise<DescribedCapture> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      this.#runnable(entry);
      if (entry.origin === 'sql')
        throw new PipelineError('state', 'that capture serves kafka.produce', 'set sql.produce to off');
      // It may have been told before it ever began.
      await this.#lane.transaction(client =>
        client.query(
          `INSERT INTO kafka.captures (name, slot_name, paused) VALUES ($1, $2, true)
           ON CONFLICT (name) DO UPDATE SET paused = true`,
          [name, entry.definition?.slot ?? ownSlot(name)],
        ),
      );
      entry.paused = true;
      await entry.capture?.stop();
      return this.describe(name);
    });
  }

  /** Begins a capture that is paused or has ended; one that runs goes on. */
  async resume(name: string): Promise<DescribedCapture> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      this.#runnable(entry);
      const { state } = statusOf(entry);
      if (state === 'starting' || state === 'streaming' || state === 'retrying') return this.describe(name);
      await this.#lane.transaction(client =>
        client.query('UPDATE kafka.captures SET paused = false WHERE name = $1', [name]),
      );
      entry.paused = false;
      await this.#begin(entry);
      return this.describe(name);
    });
  }

  /** Stops it and begins it again, with its secrets looked up anew. */
  async restart(name: string): Promise<DescribedCapture> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      this.#runnable(entry);
      if (entry.paused) throw new PipelineError('state', `capture ${name} is paused`, 'resume it');
      await this.#begin(entry);
      return this.describe(name);
    });
  }

  /** Has the tables that match be read again while the capture streams. Returns how many. */
  async resnapshot(name: string, pattern: string): Promise<number> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      const tables = entry.origin === 'sql' ? undefined : await entry.capture?.resnapshot(pattern);
      if (tables !== undefined) return tables;
      throw new PipelineError('state', `capture ${name} does not stream`, `it is ${statusOf(entry).state}`);
    });
  }

  async stop(hurry: AbortSignal): Promise<void> {
    this.#turns.close();
    const captures = Array.from(this.#entries.values(), ({ capture }) => capture?.stop(hurry));
    await Promise.all([...captures, this.#turns.done(hurry)]);
  }

  #add(entry: Pick<Entry, 'name' | 'origin' | 'where' | 'written'> & { definition?: CaptureDefinition }): Entry {
    const added = { definition: undefined, capture: undefined, paused: false, broken: undefined, ...entry };
    this.#entries.set(entry.name, added);
    return added;
  }

  #read(name: string, written: unknown, where: string | undefined): CaptureDefinition {
    if (name !== sqlCapture)
      return readDefinition(name, written, { file: where, references: this.#options.references });
    throw new OperationalError(`a capture cannot be called ${sqlCapture}`, {
      code: 'BAD_SETTING',
      hint: 'that is the one which serves kafka.produce; choose another name',
    });
  }

  /** Two captures with one slot would take each other's changes; with one publication, each other's tables. */
  #clash({ name, source, slot, publication }: CaptureDefinition): OperationalError | undefined {
    const own = this.#options.context.databaseUrl;
    for (const other of this.#entries.values()) {
      if (other.definition === undefined || (other.definition.source ?? own) !== (source ?? own)) continue;
      const same = other.definition.slot === slot ? `slot ${slot}` : `publication ${publication}`;
      if (other.definition.slot !== slot && other.definition.publication !== publication) continue;
      return new OperationalError(`captures ${other.name} and ${name} have the same ${same}`, {
        code: 'BAD_SETTING',
        hint: 'give each its own',
      });
    }
    return undefined;
  }

  #define(entry: Entry): CaptureDefinition | undefined {
    const { context } = this.#options;
    const { name, where, written } = entry;
    return define(
      entry,
      () => this.#read(name, written, where),
      ({ message: reason, hint }) => context.logger.error({ capture: name, reason, hint }, 'a capture has failed'),
    );
  }

  /** What ran before has ended when the new one begins. */
  async #begin(entry: Entry): Promise<void> {
    const { context, produce } = this.#options;
    await entry.capture?.stop();
    entry.capture = undefined;
    if (this.#turns.closed || entry.origin === 'removed') return;
    if (entry.origin === 'sql') {
      entry.capture = await openSqlCapture(context, produce);
    } else {
      const definition = this.#define(entry);
      entry.capture = definition && new Capture(context, { definition });
    }
    if (!this.#turns.closed) entry.capture?.start();
  }

  async #release(stored: StoredCapture): Promise<readonly Left[]> {
    const { context, references } = this.#options;
    const publication = stored.publication ?? ownSlot(stored.name);
    const slotIsOwn = stored.slotMade || stored.slot === ownSlot(stored.name);
    const url = () =>
      readSource(stored.source ?? undefined, `the source of capture ${stored.name}`, references) ?? context.databaseUrl;
    return release({ url, slot: stored.slot, slotIsOwn, publication });
  }

  #known(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw new PipelineError('unknown', `there is no capture ${name}`);
    return entry;
  }

  #runnable({ name, origin }: Entry): void {
    if (origin === 'removed')
      throw new PipelineError('state', `capture ${name} is ${removedReason}`, removedHint(name));
  }
}

function given({ name, where }: Entry): PipelineError {
  const hint = 'take it out of there, restart Millrace, then delete it';
  return new PipelineError('file', `capture ${name} is in ${where}`, hint);
}

const ownSlot = (name: string): string => `millrace_${name}`;

const removedReason = 'no longer defined, and its slot may still hold back WAL';
const removedHint = (name: string): string =>
  `delete it with: curl -X DELETE http://…/api/captures/${name}, or define it again`;

function statusOf({ name, origin, capture, paused, broken }: Entry): ListedCapture {
  const status = capture?.status() ?? { ...nothing, name };
  if (broken !== undefined) return { ...status, origin, state: 'failed', reason: broken.message, hint: broken.hint };
  if (origin === 'removed')
    return { ...status, origin, state: 'stopped', reason: removedReason, hint: removedHint(name) };
  return { ...status, origin, ...(paused ? { state: 'paused', reason: undefined, hint: undefined } : {}) };
}

/** What a capture that has not begun has done. */
const nothing: Omit<CaptureStatus, 'name'> = {
  state: 'stopped',
  reason: undefined,
  hint: undefined,
  confirmedLsn: formatLsn(noLsn),
  transactions: 0,
  changes: 0,
  records: 0,
  bytes: 0,
  spooledBytes: 0,
  deadLetters: 0,
  tables: [],
  notices: [],
  snapshots: [],
  lagMs: 0,
  slot: undefined,
  target: undefined,
};
