// Producers of a topic here and in the target. Ids of the two clusters are given independently, so that of a producer here may
// be another's there: each is given one by the target when its first batch is passed on, noted before it is used
// (kafka.mirror_clients), and has its own again in what is copied back. Another at each cut-over: of what was appended here
// in between, the target would miss the sequences.
import { newProducerId } from '../client/admin.ts';
import type { Cluster } from '../client/cluster.ts';
import type { WriteLane } from '../storage/write-lane.ts';

export interface ClientIdsOptions {
  readonly cluster: Cluster;
  readonly lane: WriteLane;
  readonly mirrorId: number;
  readonly clusterId: string;
  readonly topicId: number;
}

export class ClientIds {
  readonly #options: ClientIdsOptions;
  readonly #there = new Map<bigint, Promise<bigint>>();
  readonly #here = new Map<bigint, bigint>();

  private constructor(options: ClientIdsOptions) {
    this.#options = options;
  }

  static async load(options: ClientIdsOptions): Promise<ClientIds> {
    const ids = new ClientIds(options);
    const { rows } = await options.lane.run(client =>
      client.query<{ here: bigint; there: bigint }>(
        `SELECT producer_id AS here, target_producer_id AS there FROM kafka.mirror_clients
         WHERE mirror_id = $1 AND cluster_id = $2 AND topic_id = $3`,
        [options.mirrorId, options.clusterId, options.topicId],
      ),
    );
    for (const { here, there } of rows) {
      ids.#there.set(here, Promise.resolve(there));
      ids.#here.set(there, here);
    }
    return ids;
  }

  /** In the target. Rejects where the target gives none, or it cannot be noted. */
  async there(here: bigint): Promise<bigint> {
    const known = this.#there.get(here);
    if (known) return known;
    const making = this.#make(here);
    this.#there.set(here, making);
    making.catch(() => this.#there.delete(here));
    return making;
  }

  /** Undefined for one that writes to the target by itself. */
  here(there: bigint): bigint | undefined {
    return this.#here.get(there);
  }

  async #make(here: bigint): Promise<bigint> {
    const { cluster, lane, mirrorId, clusterId, topicId } = this.#options;
    const given = await newProducerId(cluster);
    // A session before this one may have been at it still: what is noted first holds for both.
    const { rows } = await lane.transaction(client =>
      client.query<{ there: bigint }>(
        `INSERT INTO kafka.mirror_clients AS c (mirror_id, cluster_id, topic_id, producer_id, target_producer_id)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (mirror_id, cluster_id, topic_id, producer_id) DO UPDATE SET target_producer_id = c.target_producer_id
         RETURNING target_producer_id AS there`,
        [mirrorId, clusterId, topicId, here, given],
      ),
    );
    const { there } = rows[0]!;
    this.#here.set(there, here);
    return there;
  }
}

/** Before a topic is cut over: its producers get other ids in the target. */
export async function forgetClients(lane: WriteLane, mirrorId: number, topicId: number): Promise<void> {
  await lane.transaction(client =>
    client.query('DELETE FROM kafka.mirror_clients WHERE mirror_id = $1 AND topic_id = $2', [mirrorId, topicId]),
  );
}
