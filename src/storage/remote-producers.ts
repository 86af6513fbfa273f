// The producer ids under which a pipeline has written to a remote cluster, noted before they are used: by them it knows its
// own batches after a crash. The newest is in use.
import type { WriteLane } from './write-lane.ts';

export interface KnownProducer {
  readonly producerId: bigint;
  /** How often in a row a partition refused what follows its end. */
  readonly refusals: number;
}

/** After so many in a row the sequences are given up: the target has forgotten or lost what the end would tell. */
const mostRefusals = 5;

/** Whose producers: the table, its column that names the pipeline, and the pipeline's number. */
export interface ProducersOf {
  readonly table: 'kafka.capture_producers' | 'kafka.mirror_producers';
  readonly column: 'capture_id' | 'mirror_id';
  readonly id: number;
}

export class RemoteProducers {
  readonly #lane: WriteLane;
  readonly #of: ProducersOf;
  readonly #clusterId: string;

  constructor(lane: WriteLane, of: ProducersOf, clusterId: string) {
    this.#lane = lane;
    this.#of = of;
    this.#clusterId = clusterId;
  }

  /** All of them, the one to use last: it comes from `make` where there is none, or none that is of use. */
  async load(make: () => Promise<bigint>): Promise<readonly [KnownProducer, ...KnownProducer[]]> {
    const { table, column, id } = this.#of;
    const { rows } = await this.#lane.transaction(client =>
      client.query<{ producer_id: string; refusals: number }>(
        `SELECT producer_id::text, refusals FROM ${table} WHERE ${column} = $1 AND cluster_id = $2
         ORDER BY made_at, producer_id`,
        [id, this.#clusterId],
      ),
    );
    const known = rows.map(row => ({ producerId: BigInt(row.producer_id), refusals: row.refusals }));
    const newest = known.at(-1);
    if (newest !== undefined && newest.refusals < mostRefusals) return known as [KnownProducer, ...KnownProducer[]];
    const producerId = await make();
    await this.#lane.transaction(client =>
      client.query(`INSERT INTO ${table} (${column}, cluster_id, producer_id) VALUES ($1, $2, $3)`, [
        id,
        this.#clusterId,
        producerId,
      ]),
    );
    return [...known, { producerId, refusals: 0 }] as unknown as [KnownProducer, ...KnownProducer[]];
  }

  /** A partition refused what follows its end; `again` false: one has taken it. */
  async refused(producerId: bigint, again: boolean): Promise<void> {
    const { table, column, id } = this.#of;
    await this.#lane.transaction(client =>
      client.query(
        `UPDATE ${table} SET refusals = CASE WHEN $4 THEN refusals + 1 ELSE 0 END
         WHERE ${column} = $1 AND cluster_id = $2 AND producer_id = $3`,
        [id, this.#clusterId, producerId, again],
      ),
    );
  }
}
