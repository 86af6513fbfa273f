// Which tables a capture has, while it streams: those that are made later and match are published, and read beside the
// stream, without being asked for. PostgreSQL tells nobody of new tables but by event triggers, which only a superuser
// may make, so the catalogue is looked at every few seconds.
//
//   made … rows … │published … writers of before have ended │ published again, read by a snapshot (unless: never)
//
// What is written before is published is in the snapshot: it begins when whoever wrote to the table at that moment has
// ended. It is published again then, because a walsender before 14.18, 15.13, 16.9 and 17.5 that decodes such a
// writer's transaction would go on leaving the table out.
//
// A table that cannot be taken in is left out and told, with the SQL that mends it; the others go on.
import type { Logger } from 'pino';
import { codeOf, messageOf } from '../runtime/errors.ts';
import { TopicError } from '../storage/topics.ts';
import { type CaptureDefinition, isOutbox, type TableName, topicOf } from './definition.ts';
import type { Outlet } from './outlet.ts';
import type { Attached, Partitions } from './partitions.ts';
import type { Snapshots } from './snapshots.ts';
import { changesRows, identityHint, quoted, type Source, type SourceTable } from './source.ts';

/** What somebody should know of a table. */
export interface TableNotice {
  readonly table: string;
  /** Whether its changes are captured. */
  readonly captured: boolean;
  readonly reason: string;
  readonly hint: string;
}

export interface MembershipOptions {
  readonly definition: CaptureDefinition;
  readonly source: Source;
  readonly outlet: Outlet;
  readonly snapshots: Snapshots;
  readonly partitions: Partitions;
  readonly defaultPartitions: number;
  readonly logger: Logger;
}

interface Settling {
  readonly table: SourceTable;
  /** Virtual transactions that wrote to it when it was published and have not been seen to end. */
  writers: readonly string[];
}

export class Membership {
  readonly #options: MembershipOptions;
  readonly #notices = new Map<string, TableNotice>();
  #tables: readonly SourceTable[];
  #settling: Settling[] = [];

  /** `tables`: those that are published already. */
  constructor(tables: readonly SourceTable[], options: MembershipOptions) {
    this.#tables = tables;
    this.#options = options;
  }

  /** Those that are captured. */
  get tables(): readonly SourceTable[] {
    return this.#tables;
  }

  get notices(): readonly TableNotice[] {
    return [...this.#notices.values()];
  }

  /** Whether a table waits for those who write to it: it is worth looking again soon. */
  get isSettling(): boolean {
    return this.#settling.length > 0;
  }

  /** Looks for tables that have come or gone. Not to be called while it runs. Throws only where the source is lost. */
  async look(): Promise<void> {
    const { definition, source, snapshots, partitions } = this.#options;
    const wanted = await source.tables(definition);
    const { missing, surplus } = await source.differences(definition, wanted);
    for (const name of this.#notices.keys()) {
      if (!wanted.some(table => nameOf(table) === name)) this.#notices.delete(name);
    }
    for (const table of surplus) await source.unpublish(definition, table);
    // Those that somebody else has published meanwhile.
    for (const table of wanted) {
      if (!missing.includes(table) && this.#notices.get(nameOf(table))?.captured === false)
        await this.#published(table);
    }
    const out = new Set<number>();
    for (const table of missing) if (!(await this.#take(table))) out.add(table.oid);
    this.#tables = wanted.filter(({ oid }) => !out.has(oid));
    await this.#settle();
    const settled = this.#tables.filter(({ oid }) => !this.#settling.some(({ table }) => table.oid === oid));
    // Also one that has the name of another now.
    await snapshots.takeIn(settled);
    const read = settled.filter(({ schema, name }) => !isOutbox(definition, schema, name));
    for (const attached of await partitions.attached(read)) await this.#readAttached(attached);
  }

  /** They are read again: what they had before is no longer missing. */
  read(tables: readonly SourceTable[]): void {
    for (const table of tables) if (this.#notices.get(nameOf(table))?.captured) this.#notices.delete(nameOf(table));
  }

  /** Publishes a table. False: it is left out. */
  async #take(table: SourceTable): Promise<boolean> {
    const problem = (await this.#problem(table)) ?? (await this.#publish(table));
    if (problem === 'gone') return false;
    if (problem !== undefined) {
      this.#notice(table, false, problem.reason, problem.hint);
      return false;
    }
    await this.#published(table);
    return true;
  }

  async #published(table: SourceTable): Promise<void> {
    const { definition, source, partitions, logger } = this.#options;
    this.#notices.delete(nameOf(table));
    await partitions.begin([table]);
    this.#settling.push({ table, writers: await source.writersOf(table.oid) });
    logger.info({ table: nameOf(table), snapshot: definition.snapshot }, 'a new table is captured');
    if (
      definition.snapshot === 'never' &&
      !isOutbox(definition, table.schema, table.name) &&
      (await this.#hasRows(table))
    ) {
      const reason = 'rows that it had when it was published are not in its topic (snapshot: never)';
      this.#notice(table, true, reason, this.#resnapshotHint(table));
    }
  }

  async #readAttached(attached: Attached): Promise<void> {
    const { definition, source, snapshots, partitions, logger } = this.#options;
    const { table, name, leaf } = attached;
    // Up to 14 a walsender that has decoded changes of the partition from before goes on leaving it out.
    if (source.version < 150_000) await source.publishAgain(definition, table).catch(unlessPassedOver);
    if (definition.snapshot === 'never') {
      const reason = `rows that ${nameOf(name)} had when it was attached are not in its topic (snapshot: never)`;
      this.#notice(table, true, reason, this.#resnapshotHint(table));
    } else {
      if (!(await snapshots.readPartition(table, leaf))) return; // at a later look
      logger.info({ table: nameOf(table), partition: nameOf(name) }, 'a partition was attached with rows: it is read');
    }
    await partitions.taken(attached);
  }

  #resnapshotHint(table: SourceTable): string {
    const { name } = this.#options.definition;
    return `read them with: curl -X POST 'http://…/api/captures/${name}/resnapshot?table=${nameOf(table)}'`;
  }

  async #problem(table: SourceTable): Promise<{ reason: string; hint: string } | undefined> {
    const { definition, outlet, defaultPartitions } = this.#options;
    if (!table.hasIdentity && changesRows(definition)) {
      return {
        reason: 'its rows cannot be told apart: UPDATE and DELETE would fail once it is published',
        hint: identityHint([table]),
      };
    }
    if (isOutbox(definition, table.schema, table.name)) return undefined;
    const topic = topicOf(definition, table.schema, table.name);
    try {
      await outlet.target(topic, definition.partitions ?? defaultPartitions, definition.topicConfig);
      return undefined;
    } catch (error) {
      if (!(error instanceof TopicError)) throw error;
      return { reason: `it cannot go to topic ${topic}: ${error.message}`, hint: 'leave it out with exclude' };
    }
  }

  async #publish(table: SourceTable): Promise<'gone' | { reason: string; hint: string } | undefined> {
    const { definition, source, snapshots } = this.#options;
    await snapshots.expect(table);
    try {
      await source.publish(definition, table);
      return undefined;
    } catch (error) {
      snapshots.forget(table);
      if (codeOf(error) === '42P01') return 'gone'; // it will not be wanted the next time
      if (codeOf(error) !== '42501') throw error;
      const hint = `run as the owner of both: ALTER PUBLICATION ${definition.publication} ADD TABLE ${quoted(table)}`;
      return { reason: `the role may not publish it (${messageOf(error)})`, hint };
    }
  }

  async #settle(): Promise<void> {
    const { definition, source, snapshots } = this.#options;
    const waiting: Settling[] = [];
    for (const settling of this.#settling) {
      const { table } = settling;
      if (!this.#tables.some(({ oid }) => oid === table.oid)) {
        snapshots.forget(table); // it is gone already
        continue;
      }
      const now = new Set(await source.writersOf(table.oid));
      settling.writers = settling.writers.filter(writer => now.has(writer));
      if (settling.writers.length > 0) waiting.push(settling);
      else await source.publishAgain(definition, table).catch(unlessPassedOver);
    }
    this.#settling = waiting;
  }

  /** True where it cannot be known. */
  async #hasRows(table: SourceTable): Promise<boolean> {
    const { source } = this.#options;
    return source.client
      .query<{ some: boolean }>(`SELECT EXISTS (SELECT FROM ${quoted(table)}) AS some`)
      .then(({ rows }) => rows[0]!.some)
      .catch(() => true);
  }

  /** Once for as long as it is so. */
  #notice(table: SourceTable, captured: boolean, reason: string, hint: string): void {
    const name = nameOf(table);
    const known = this.#notices.get(name);
    if (known?.reason === reason) return;
    this.#notices.set(name, { table: name, captured, reason, hint });
    const message = captured ? 'of a new table changes alone are captured' : 'a table is not captured';
    this.#options.logger.warn({ table: name, reason, hint }, message);
  }
}

/** A table that has been dropped, or that somebody else has published. */
function unlessPassedOver(error: unknown): void {
  if (!['42501', '42704', '42P01'].includes(codeOf(error) ?? '')) throw error;
}

const nameOf = ({ schema, name }: TableName): string => `${schema}.${name}`;
