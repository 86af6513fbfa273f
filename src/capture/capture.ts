// One capture: its source, slot and stream, begun again with backoff whenever they break, until it is stopped or finds
// something that a person must mend. Where it stands is in Postgres (kafka.captures and kafka.capture_positions), so
// beginning again is the same after a lost connection, a restart and a kill -9.
//
//   starting ──▶ streaming ──▶ retrying ──▶ starting …
//                    ├──────▶ failed (with the way out)      stopped, from anywhere
//                    └──────▶ done (snapshot: only)
import { mkdirSync } from 'node:fs';
import type { Logger } from 'pino';
import { formatLsn, type Lsn, noLsn, parseLsn } from '../postgres/lsn.ts';
import type { Pool } from '../postgres/pool.ts';
import { aborted } from '../runtime/aborted.ts';
import { backoff } from '../runtime/backoff.ts';
import { codeOf, messageOf, OperationalError } from '../runtime/errors.ts';
import type { Log } from '../storage/log.ts';
import type { TopicSettings } from '../storage/topic-config.ts';
import type { Term, Topic, Topics } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { CaptureRun, type CaptureTotals, SnapshotDone } from './capture-run.ts';
import { type CaptureDefinition, isOutbox, matches } from './definition.ts';
import type { Destination } from './destination.ts';
import { followLineage } from './lineage.ts';
import { LogDestination } from './log-destination.ts';
import type { TableNotice } from './membership.ts';
import { RemoteDestination, type RemoteStatus } from './remote-destination.ts';
import type { SnapshotStatus } from './snapshots.ts';
import { CaptureError, GapError, publicationGone, type SlotState, Source, type SourceTable } from './source.ts';
import { emptySpoolDirectory } from './stream.ts';

export interface CaptureContext {
  /** The log's own database. */
  readonly databaseUrl: string;
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly settingsOf: (topic: Topic) => TopicSettings;
  readonly term: () => Term;
  readonly defaultPartitions: number;
  /** Where transactions in progress are kept; each capture has a directory of its own in it. */
  readonly spoolDirectory: string;
  readonly logger: Logger;
}

export interface CaptureOptions {
  readonly definition: CaptureDefinition;
  /** Verifies kafka.produce; only for the one capture that serves it. */
  readonly produceKey?: Buffer;
  /** Told of each state it comes to, with the reason and the way out where there is one. */
  readonly onState?: (state: CaptureState, reason?: string, hint?: string) => void;
  /** How often new tables are looked for; by default every 5 s. */
  readonly tablesEveryMs?: number;
}

/** paused: until it is resumed; a capture that was never begun has no other. */
export type CaptureState = 'paused' | 'starting' | 'streaming' | 'retrying' | 'failed' | 'done' | 'stopped';

export interface CaptureStatus {
  readonly name: string;
  readonly state: CaptureState;
  /** Why it is retrying or has failed, and what to do. */
  readonly reason: string | undefined;
  readonly hint: string | undefined;
  readonly confirmedLsn: string;
  readonly transactions: number;
  readonly changes: number;
  readonly records: number;
  readonly bytes: number;
  readonly spooledBytes: number;
  readonly deadLetters: number;
  readonly tables: readonly string[];
  /** Tables that are left out, or whose rows from before are. */
  readonly notices: readonly TableNotice[];
  readonly snapshots: readonly SnapshotStatus[];
  /** From the newest commit seen to now, while anything waits to be appended; 0 when it has caught up. */
  readonly lagMs: number;
  readonly slot: Pick<SlotState, 'active' | 'walStatus' | 'retainedBytes' | 'safeBytes'> | undefined;
  /** Of a remote Kafka that it writes to. */
  readonly target: RemoteStatus | undefined;
}

/** What a run begins with. */
interface Begun {
  readonly captureId: number;
  readonly from: Lsn;
  /** Those that are published. */
  readonly tables: readonly SourceTable[];
}

const slotCheckMs = 10_000;
/** SQLSTATE object_in_use. */
const slotInUse = '55006';
const defaultTablesEveryMs = 5000;
/** Less than this until the slot is invalidated, and people are told. */
const worryBytes = 512n * 1024n * 1024n;

/** Somebody who has it has noted more, and told it so, since it was looked up here how far everything is. */
class SlotInUseError extends Error {
  readonly code = slotInUse;

  constructor(slot: string) {
    super(`replication slot ${slot} is moved on by somebody else`);
  }
}

export class Capture {
  readonly #context: CaptureContext;
  readonly #definition: CaptureDefinition;
  readonly #produceKey: Buffer | undefined;
  readonly #onState: CaptureOptions['onState'];
  readonly #tablesEveryMs: number;
  readonly #lane: WriteLane;
  readonly #logger: Logger;
  readonly #stopping = new AbortController();
  #state: CaptureState = 'starting';
  #reason: string | undefined;
  #hint: string | undefined;
  #running: Promise<void> | undefined;
  /** While there is one. */
  #run: CaptureRun | undefined;
  /** The last one there was. */
  #newest: CaptureRun | undefined;
  #slot: SlotState | undefined;
  #remote: RemoteDestination | undefined;
  #confirmed: Lsn = noLsn;
  #deadLetters = 0;
  /** Of all runs that have ended. */
  readonly #totals: CaptureTotals = { transactions: 0, changes: 0, records: 0, bytes: 0, spooledBytes: 0 };

  constructor(context: CaptureContext, { definition, produceKey, onState, tablesEveryMs }: CaptureOptions) {
    this.#context = context;
    this.#definition = definition;
    this.#produceKey = produceKey;
    this.#onState = onState;
    this.#tablesEveryMs = tablesEveryMs ?? defaultTablesEveryMs;
    this.#lane = new WriteLane(context.pool, context.term);
    this.#logger = context.logger.child({ capture: definition.name });
  }

  get name(): string {
    return this.#definition.name;
  }

  start(): void {
    this.#running ??= this.#keepRunning();
  }

  /** Appends what has arrived, and lets the slot go. Once `hurry` is aborted, waits for nothing more. */
  async stop(hurry?: AbortSignal): Promise<void> {
    this.#stopping.abort();
    await Promise.race(hurry ? [this.#running, aborted(hurry)] : [this.#running]);
    this.#run?.outlet.abandon();
    this.#become('stopped');
  }

  status(): CaptureStatus {
    const run = this.#run;
    const { outlet, stream } = run ?? {};
    const behind = outlet !== undefined && !outlet.idle;
    const newest = this.#newest;
    return {
      name: this.name,
      state: this.#state,
      reason: this.#reason,
      hint: this.#hint,
      confirmedLsn: formatLsn(stream?.confirmed ?? this.#confirmed),
      ...sumOf(this.#totals, run?.totals),
      deadLetters: this.#deadLetters,
      snapshots: newest?.snapshots.status() ?? [],
      tables: (newest?.membership.tables ?? []).map(table => `${table.schema}.${table.name}`),
      notices: newest?.membership.notices ?? [],
      lagMs: behind && stream ? Math.max(0, Date.now() - stream.counters.newestCommitMs) : 0,
      slot: this.#slot,
      target: this.#remote?.status(),
    };
  }

  #become(state: CaptureState, reason?: string, hint?: string): void {
    this.#state = state;
    this.#reason = reason;
    this.#hint = hint;
    this.#onState?.(state, reason, hint);
  }

  async #keepRunning(): Promise<void> {
    let wait = backoff({ firstMs: 100, maxMs: 10_000 });
    const standby = backoff({ firstMs: 500, maxMs: 4000 });
    while (!this.#stopping.signal.aborted) {
      let error: Error;
      const began = Date.now();
      try {
        error = await this.#attempt();
      } catch (thrown) {
        error = thrown as Error;
      }
      Object.assign(this.#totals, sumOf(this.#totals, this.#run?.totals));
      this.#run = undefined;
      if (this.#stopping.signal.aborted) return;
      if (error instanceof SnapshotDone) {
        this.#logger.info('the tables have been read, and nothing more was asked for');
        this.#become('done');
        return;
      }
      const final = lasting(error, this.#definition);
      if (final) {
        this.#logger.error({ reason: final.message, hint: final.hint }, 'a capture has failed');
        this.#become('failed', final.message, final.hint);
        return;
      }
      this.#logger.warn({ error: messageOf(error), code: codeOf(error) }, 'a capture broke off; trying again');
      this.#become('retrying', messageOf(error), error instanceof OperationalError ? error.hint : undefined);
      if (Date.now() - began > 60_000) wait = backoff({ firstMs: 100, maxMs: 10_000 });
      // Whoever reads the slot may end at any moment, and nobody reads it then.
      const waited = codeOf(error) === slotInUse ? standby() : wait();
      await unlessAborted(this.#stopping.signal, waited);
    }
  }

  /** Streams until it breaks; resolves with the reason. */
  async #attempt(): Promise<Error> {
    const { databaseUrl, spoolDirectory } = this.#context;
    const definition = this.#definition;
    const { signal } = this.#stopping;
    let run: CaptureRun | undefined;
    const source = await Source.open(definition.source ?? databaseUrl, error => run?.fail(error));
    let slotTimer: NodeJS.Timeout | undefined;
    const directory = `${spoolDirectory}/${definition.name}`;
    // Before it streams, nothing waits that is worth waiting for.
    const onStop = () => {
      if (this.#state !== 'streaming') run?.outlet.abandon();
    };
    signal.addEventListener('abort', onStop);
    try {
      const wanted = await source.tables(definition);
      if (definition.snapshot === 'only' && (await this.#isRead(wanted))) return new SnapshotDone();
      const begun = await this.#begin(source, wanted);
      this.#confirmed = begun.from;
      emptySpoolDirectory(directory);
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      run = this.#newRun(source, directory, begun);
      this.#run = run;
      this.#newest = run;
      await run.load();
      if (signal.aborted) return new Error('stopping');
      await run.start();
      this.#become('streaming');
      const { from, tables } = begun;
      this.#logger.info({ slot: definition.slot, from: formatLsn(from), tables: tables.length }, 'capturing');
      const watch = (watched: CaptureRun) => void this.#watch(source, watched);
      slotTimer = setInterval(watch, slotCheckMs, run);
      watch(run);
      const error = (await unlessAborted(signal, run.broken)) ?? new Error('stopping');
      const isDone = error instanceof SnapshotDone;
      if (signal.aborted || isDone) await run.finish();
      if (isDone) await source.dropSlot(definition.slot);
      return error;
    } finally {
      signal.removeEventListener('abort', onStop);
      clearInterval(slotTimer);
      if (run) await run.end();
      else await source.end();
      emptySpoolDirectory(directory);
    }
  }

  #newRun(source: Source, spoolDirectory: string, { captureId, from, tables }: Begun): CaptureRun {
    const definition = this.#definition;
    const { databaseUrl, defaultPartitions, log } = this.#context;
    const destination = this.#destination(captureId, from);
    return new CaptureRun({
      ...{ definition, captureId, source, from, tables, destination, spoolDirectory },
      sourceUrl: definition.source ?? databaseUrl,
      memory: log.memory,
      lane: this.#lane,
      logger: this.#logger,
      // A remote target has a default of its own.
      defaultPartitions: definition.target ? -1 : defaultPartitions,
      tablesEveryMs: this.#tablesEveryMs,
      produceKey: this.#produceKey,
      saveProgress: lsn => this.#saveProgress(captureId, lsn, destination),
      onDeadLetter: (topic, reason) => {
        this.#deadLetters++;
        this.#logger.error({ topic, reason }, 'a record went to the dead letters');
      },
    });
  }

  /** Has tables that match be read again. Returns how many; undefined where the capture does not stream. */
  async resnapshot(pattern: string): Promise<number | undefined> {
    if (this.#state !== 'streaming' || this.#run === undefined) return undefined;
    const { snapshots, membership } = this.#run;
    const tables = membership.tables.filter(
      ({ schema, name }) => matches([pattern], schema, name) && !isOutbox(this.#definition, schema, name),
    );
    membership.read(tables);
    return snapshots.again(tables);
  }

  /** Whether there is no table that has not been read to its end. */
  async #isRead(tables: readonly SourceTable[]): Promise<boolean> {
    const { rows } = await this.#context.pool.query<{ table: string }>(
      `SELECT schema_name || '.' || table_name AS table FROM kafka.capture_snapshots JOIN kafka.captures USING (capture_id)
       WHERE name = $1 AND done`,
      [this.name],
    );
    const read = new Set(rows.map(({ table }) => table));
    return tables.length > 0 && tables.every(({ schema, name }) => read.has(`${schema}.${name}`));
  }

  #destination(captureId: number, confirmed: Lsn): Destination {
    const { pool, log, topics, settingsOf } = this.#context;
    const { name, target } = this.#definition;
    if (target === undefined) return new LogDestination({ captureId, pool, log, topics, settingsOf });
    const { createTopics, replicationFactor, ...connection } = target;
    const cluster = { ...connection, clientId: `millrace-capture-${name}` };
    const options = { captureId, name, lane: this.#lane, cluster, createTopics, replicationFactor, confirmed };
    this.#remote = new RemoteDestination({ ...options, logger: this.#logger });
    return this.#remote;
  }

  async #saveProgress(captureId: number, lsn: Lsn, destination?: Destination): Promise<void> {
    await this.#lane.transaction(async client => {
      await destination?.note(client);
      await client.query('UPDATE kafka.captures SET confirmed_lsn = $2 WHERE capture_id = $1 AND confirmed_lsn < $2', [
        captureId,
        formatLsn(lsn),
      ]);
    });
  }

  /** Where to begin. Where changes have been lost, and it was said beforehand what to do then, everything begins anew. */
  async #begin(source: Source, wanted: readonly SourceTable[]): Promise<Begun> {
    const { signal } = this.#stopping;
    // A slot is made only once every transaction that runs has ended, which may take hours.
    const cancel = () => void source.cancel();
    signal.addEventListener('abort', cancel);
    try {
      return await this.#beginOrBeginAnew(source, wanted);
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }

  async #beginOrBeginAnew(source: Source, wanted: readonly SourceTable[]): Promise<Begun> {
    const { name, slot, snapshot } = this.#definition;
    const begin = async () => {
      const { captureId, confirmed } = await this.#register();
      const tables = await source.ensurePublication(this.#definition, wanted, confirmed);
      const { pool, databaseUrl } = this.#context;
      const from = await followLineage({
        source,
        sourceUrl: this.#definition.source ?? databaseUrl,
        definition: this.#definition,
        captureId,
        confirmed,
        pool,
        lane: this.#lane,
      });
      return { captureId, from: await this.#ensureSlot(source, captureId, from), tables };
    };
    try {
      return await begin();
    } catch (error) {
      if (!(error instanceof GapError) || snapshot !== 'when_needed') throw error;
      this.#logger.warn({ reason: error.message, slot }, 'changes have been lost: the tables are read again');
      await source.dropSlot(slot);
      await this.#lane.transaction(client => client.query('DELETE FROM kafka.captures WHERE name = $1', [name]));
      return begin();
    }
  }

  /** Its row in kafka.captures: how far everything is in the log; 0 where it has never begun. */
  async #register(): Promise<{ captureId: number; confirmed: Lsn }> {
    const { name, slot: slotName, publication, sourceAsWritten } = this.#definition;
    const { rows } = await this.#lane.transaction(client =>
      client.query<{ id: number; confirmed: string }>(
        `INSERT INTO kafka.captures AS c (name, slot_name, publication_name, source) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET slot_name = excluded.slot_name, publication_name = excluded.publication_name,
           source = excluded.source, slot_made = c.slot_made AND c.slot_name = excluded.slot_name
         RETURNING capture_id AS id, confirmed_lsn::text AS confirmed`,
        [name, slotName, publication, sourceAsWritten ?? null],
      ),
    );
    return { captureId: rows[0]!.id, confirmed: parseLsn(rows[0]!.confirmed) };
  }

  /** The slot, made if this capture has never had one. Returns where to begin. */
  async #ensureSlot(source: Source, captureId: number, confirmed: Lsn): Promise<Lsn> {
    const { name, slot: slotName, failover } = this.#definition;
    const slot = await source.slot(slotName);
    if (failover && source.version < 170_000)
      this.#logger.warn({ slot: slotName }, 'standbys follow slots from PostgreSQL 17 on only: failover does nothing');
    if (slot === undefined) {
      if (confirmed !== noLsn) {
        throw new GapError(
          `replication slot ${slotName} is gone, and with it the changes since ${formatLsn(confirmed)}`,
          `accept the gap with: DELETE FROM kafka.captures WHERE name = '${name}'; the capture then begins anew`,
        );
      }
      // Before it is there, so that a crash leaves none that nobody may drop.
      await this.#noteSlot(captureId, true);
      if (this.#stopping.signal.aborted) throw new Error('stopping'); // nothing would cancel it any more
      const from = await source.createSlot(slotName, failover).catch(async (error: unknown) => {
        if (codeOf(error) === '42710') await this.#noteSlot(captureId, false); // somebody else has just made it
        throw error;
      });
      this.#logger.info({ slot: slotName, from: formatLsn(from) }, 'made a replication slot');
      await this.#saveProgress(captureId, from);
      return from;
    }
    if (confirmed !== noLsn && slot.confirmed > confirmed && slot.confirmed <= (await this.#register()).confirmed)
      throw new SlotInUseError(slotName);
    checkSlot(name, slotName, slot, confirmed, source.database);
    if (failover && slot.failover === false) await source.makeFailover(slotName);
    // A slot may fall back in a crash of its server: from what we know, not from what it says.
    if (confirmed !== noLsn) return confirmed;
    await this.#saveProgress(captureId, slot.confirmed);
    return slot.confirmed;
  }

  async #noteSlot(captureId: number, made: boolean): Promise<void> {
    const query = 'UPDATE kafka.captures SET slot_made = $2 WHERE capture_id = $1';
    await this.#lane.transaction(client => client.query(query, [captureId, made]));
  }

  async #watch(source: Source, run: CaptureRun): Promise<void> {
    try {
      if (!(await source.isPublished(this.#definition))) run.fail(publicationGone(this.#definition, this.#confirmed));
      const slot = await source.slot(this.#definition.slot);
      this.#slot = slot;
      if (slot?.safeBytes != null && slot.safeBytes < worryBytes) {
        this.#logger.warn(
          { slot: this.#definition.slot, safeBytes: slot.safeBytes.toString() },
          'the slot will soon be invalidated (max_slot_wal_keep_size): the capture is too far behind',
        );
      }
    } catch {
      // The stream itself tells of a source that is lost.
    }
  }
}

function sumOf(ended: CaptureTotals, running: CaptureTotals | undefined): CaptureTotals {
  return {
    transactions: ended.transactions + (running?.transactions ?? 0),
    changes: ended.changes + (running?.changes ?? 0),
    records: ended.records + (running?.records ?? 0),
    bytes: ended.bytes + (running?.bytes ?? 0),
    spooledBytes: ended.spooledBytes + (running?.spooledBytes ?? 0),
  };
}

/** What ended a stream and will not get better by itself. */
function lasting(error: Error, definition: CaptureDefinition): CaptureError | undefined {
  // The next attempt begins anew.
  if (error instanceof GapError && definition.snapshot === 'when_needed') return undefined;
  if (error instanceof CaptureError) return error;
  if (error instanceof OperationalError && !error.retriable) return new CaptureError(error.message, error.hint);
  // Of a slot that is gone, the next look at it says more.
  if (codeOf(error) !== '42704' || !error.message.includes(definition.publication)) return undefined;
  return publicationGone(definition);
}

/** Undefined once it is aborted. Leaves no listener behind: a capture may try again for years. */
async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T | undefined> {
  if (signal.aborted) return undefined;
  let onAbort: () => void = () => {};
  const aborted = new Promise<undefined>(resolve => {
    onAbort = () => resolve(undefined);
    signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

function checkSlot(name: string, slotName: string, slot: SlotState, confirmed: Lsn, database: string): void {
  const anew = `DELETE FROM kafka.captures WHERE name = '${name}'`;
  if (slot.plugin !== 'pgoutput' || slot.database !== database) {
    throw new CaptureError(
      `replication slot ${slotName} belongs to ${slot.plugin} on database ${slot.database}`,
      `name another slot for the capture, or run: SELECT pg_drop_replication_slot('${slotName}')`,
    );
  }
  if (slot.walStatus === 'lost') {
    throw new GapError(
      `replication slot ${slotName} has been invalidated: WAL it needs has been removed`,
      `run: SELECT pg_drop_replication_slot('${slotName}'); accept the gap with: ${anew}; the capture then begins anew`,
    );
  }
  if (confirmed !== noLsn && slot.confirmed > confirmed) {
    throw new GapError(
      `replication slot ${slotName} is at ${formatLsn(slot.confirmed)}, ahead of the capture at ${formatLsn(confirmed)}: it has been moved or made again, and changes between are missing`,
      `accept the gap with: ${anew}; the capture then begins at the slot`,
    );
  }
}
