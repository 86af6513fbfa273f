// Endpoints and dead letters, for HTTP: the tables and functions of the webhooks' migration, which SQL may use as well.
import type { Pool } from '../../postgres/pool.ts';
import { seqOf } from '../frame.ts';

export interface EndpointView {
  /** Null: of all subscribers that have none of their own. */
  readonly subscriber: string | null;
  readonly url: string;
  /** How many secrets of its own it has. */
  readonly secrets: number;
  readonly enabled: boolean;
  readonly reason: string | null;
}

export class UnknownInbox extends Error {}

const view = `subscriber, url, cardinality(secrets) AS secrets, enabled, reason`;

export class Administration {
  readonly #pool: Pool;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  async endpoints(inbox: string, after: string | undefined, limit: number): Promise<EndpointView[]> {
    const { rows } = await this.#pool.query<EndpointView>(
      `SELECT ${view} FROM kafka.webhook_endpoints
       WHERE inbox_id = $1 AND ($2::text IS NULL OR subscriber > $2 COLLATE "C")
       ORDER BY subscriber NULLS FIRST LIMIT $3`,
      [await this.#idOf(inbox), after ?? null, limit],
    );
    return rows;
  }

  async setEndpoint(
    inbox: string,
    subscriber: string | null,
    { url, secrets }: { readonly url: string; readonly secrets: readonly string[] },
  ): Promise<EndpointView> {
    await this.#idOf(inbox);
    const { rows } = await this.#pool.query<EndpointView>(
      `WITH made AS MATERIALIZED (SELECT kafka.webhook_endpoint($1, $2, $3, $4) AS id)
       SELECT $2::text AS subscriber, $3::text AS url, cardinality($4::text[]) AS secrets, true AS enabled, NULL AS reason
       FROM made`,
      [inbox, subscriber, url, secrets],
    );
    return rows[0]!;
  }

  /** Whether there was one. */
  async removeEndpoint(inbox: string, subscriber: string | null): Promise<boolean> {
    const { rowCount } = await this.#pool.query(
      'DELETE FROM kafka.webhook_endpoints WHERE inbox_id = $1 AND subscriber IS NOT DISTINCT FROM $2',
      [await this.#idOf(inbox), subscriber],
    );
    return rowCount! > 0;
  }

  /** Whether there is one. What was held back meanwhile is sent once it is enabled. */
  async enable(inbox: string, subscriber: string | null, enabled: boolean): Promise<boolean> {
    const { rowCount } = await this.#pool.query(
      `UPDATE kafka.webhook_endpoints SET enabled = $3, reason = $4, changed_at = now()
       WHERE inbox_id = $1 AND subscriber IS NOT DISTINCT FROM $2`,
      [await this.#idOf(inbox), subscriber, enabled, enabled ? null : 'disabled by hand'],
    );
    return rowCount! > 0;
  }

  async deadLetters(inbox: string, after: bigint, limit: number): Promise<unknown[]> {
    await this.#idOf(inbox);
    const { rows } = await this.#pool.query(
      `SELECT id, seq, attempts, code, reason, died_at AS "diedAt", in_topic AS "inTopic"
       FROM kafka.webhook_dead_letters WHERE inbox = $1 AND seq > $2 ORDER BY seq LIMIT $3`,
      [inbox, after, limit],
    );
    return rows;
  }

  /** Those with the ids given, or all. Returns how many. */
  async redrive(inbox: string, ids: readonly string[] | undefined): Promise<bigint> {
    const id = await this.#idOf(inbox);
    const seqs = ids?.flatMap(text => seqOf(id, text) ?? []);
    const { rows } = await this.#pool.query<{ redriven: bigint }>(
      'SELECT kafka.webhook_redrive($1, $2::bigint[]) AS redriven',
      [inbox, seqs ?? null],
    );
    return rows[0]!.redriven;
  }

  async #idOf(inbox: string): Promise<number> {
    const { rows } = await this.#pool.query<{ id: number }>(
      'SELECT inbox_id AS id FROM kafka.inboxes WHERE name = $1',
      [inbox],
    );
    if (rows[0] === undefined) throw new UnknownInbox(`there is no inbox ${inbox}`);
    return rows[0].id;
  }
}
