// Whether a source still is what its capture has read from. A standby that takes over, or a backup that is restored, goes
// on from where it was: if that is before what has been captured, transactions are in the log that the source never had,
// and what it does next stands at positions that the capture believes to be behind it. LSNs alone do not show that;
// timelines do (manual, "Timelines").
import { formatLsn, type Lsn, noLsn, parseLsn } from '../postgres/lsn.ts';
import type { Pool } from '../postgres/pool.ts';
import { ReplicationConnection } from '../postgres/replication.ts';
import { codeOf } from '../runtime/errors.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import { type CaptureDefinition, gapHint } from './definition.ts';
import { GapError, type Source } from './source.ts';

interface Lineage {
  /** The cluster's identifier. */
  readonly system: string;
  readonly timeline: bigint;
}

interface Found extends Lineage {
  /** Written so far. */
  readonly end: Lsn;
}

export interface LineageOptions {
  readonly source: Source;
  readonly sourceUrl: string;
  readonly definition: CaptureDefinition;
  readonly captureId: number;
  /** Everything before it is in the log. */
  readonly confirmed: Lsn;
  readonly pool: Pool;
  readonly lane: WriteLane;
}

/** Returns where to begin: earlier than `confirmed` where the line parted before it with nothing captured in between. */
export async function followLineage(options: LineageOptions): Promise<Lsn> {
  const { source, captureId, confirmed, lane } = options;
  const found = await findLineage(source);
  if (found === undefined) return confirmed;
  const from = confirmed === noLsn ? confirmed : await compare(options, found);
  await lane.transaction(client =>
    client.query(
      // Whoever has the slot meanwhile may have come further.
      `UPDATE kafka.captures SET source_system = $2, source_timeline = $3,
         confirmed_lsn = CASE confirmed_lsn WHEN $5::pg_lsn THEN $4::pg_lsn ELSE confirmed_lsn END
       WHERE capture_id = $1 AND ((source_system, source_timeline) IS DISTINCT FROM ($2, $3::bigint) OR $4::pg_lsn <> $5::pg_lsn)`,
      [captureId, found.system, found.timeline, formatLsn(from), formatLsn(confirmed)],
    ),
  );
  return from;
}

async function compare(
  { sourceUrl, definition, captureId, confirmed, pool }: LineageOptions,
  found: Found,
): Promise<Lsn> {
  const stored = await storedLineage(pool, captureId);
  if (stored !== undefined && stored.system !== found.system) {
    throw new GapError(
      `the source is another PostgreSQL cluster (${found.system}) than the one that was captured up to ${formatLsn(confirmed)} (${stored.system})`,
      `give the old one with source; or ${gapHint(definition)}; after pg_upgrade, which keeps slots from 17 on, run: UPDATE kafka.captures SET source_system = NULL WHERE name = '${definition.name}'`,
    );
  }
  const parted =
    stored === undefined || stored.timeline === found.timeline
      ? found.end
      : await partingOf(sourceUrl, stored.timeline, found.timeline);
  if (parted !== undefined && confirmed <= parted) return confirmed;
  const { rows } = await pool.query<{ newest: string | null }>(
    'SELECT max(commit_lsn)::text AS newest FROM kafka.capture_positions WHERE capture_id = $1',
    [captureId],
  );
  const newest = parseLsn(rows[0]!.newest ?? '0/0');
  // What was confirmed beyond it was nothing of the captured tables.
  if (parted !== undefined && newest < parted) return parted;
  throw new GapError(
    `the source goes on from ${parted === undefined ? 'elsewhere' : formatLsn(parted)}, which is before what has been captured (${formatLsn(newest)}): a standby took over, or a backup was restored, without it`,
    `records of transactions that are lost stay in the topics; ${gapHint(definition)}; synchronized_standby_slots makes captures wait for standbys`,
  );
}

/** Undefined where the role or the service does not let us know. */
async function findLineage(source: Source): Promise<Found | undefined> {
  try {
    const { rows } = await source.client.query<{ system: string; timeline: string; end: string }>(
      `SELECT system_identifier::text AS system, pg_current_wal_lsn()::text AS end,
              ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::int8::text AS timeline
       FROM pg_control_system()`,
    );
    const { system, timeline, end } = rows[0]!;
    return { system, timeline: BigInt(timeline), end: parseLsn(end) };
  } catch (error) {
    if (codeOf(error) !== '42501' && codeOf(error) !== '0A000') throw error;
    return undefined;
  }
}

async function storedLineage(pool: Pool, captureId: number): Promise<Lineage | undefined> {
  const { rows } = await pool.query<{ system: string | null; timeline: bigint }>(
    'SELECT source_system AS system, source_timeline AS timeline FROM kafka.captures WHERE capture_id = $1',
    [captureId],
  );
  const { system, timeline } = rows[0]!;
  return system === null ? undefined : { system, timeline };
}

/** Where `current` left the timeline `former`; undefined where it does not come from it. */
async function partingOf(sourceUrl: string, former: bigint, current: bigint): Promise<Lsn | undefined> {
  const connection = await ReplicationConnection.open(sourceUrl, 'millrace capture');
  try {
    const [history] = await connection.command<{ content: Buffer | string }>(`TIMELINE_HISTORY ${current}`);
    for (const line of String(history?.content ?? '').split('\n')) {
      const [timeline, at] = line.trim().split(/\s+/);
      if (timeline === String(former) && at !== undefined) return parseLsn(at);
    }
    return undefined;
  } catch (error) {
    if (codeOf(error) !== '58P01') throw error; // the first timeline has no history
    return undefined;
  } finally {
    await connection.end();
  }
}
