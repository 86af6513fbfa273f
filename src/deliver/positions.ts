// Where it is stored how far an inbox has read: offsets of a consumer group of this log, or, out of a remote Kafka, rows of
// kafka.inbox_positions. Each is true up to a row of the inbox, behind which the rows tell themselves. They move in a transaction
// of rows, and only from where they are expected.
import type { ClientBase } from 'pg';

/** A partition that the inbox reads. */
export interface Place {
  readonly topicId: number;
  readonly partition: number;
}

export interface Move extends Place {
  /** What the stored offset must be. */
  readonly expected: bigint;
  readonly next: bigint;
}

export interface StoredPosition extends Place {
  readonly offset: bigint;
  /** The row up to which it tells; undefined where somebody else moved it. */
  readonly told: bigint | undefined;
}

export interface Positions {
  read(client: ClientBase): Promise<StoredPosition[]>;
  /** Those that are not stored yet. */
  insert(client: ClientBase, begin: readonly (Place & { readonly offset: bigint })[], told: bigint): Promise<void>;
  /** Throws PositionsMoved. */
  move(client: ClientBase, moves: readonly Move[], told: bigint): Promise<void>;
  /** Keeps those of an idle inbox from expiring. */
  keep?(client: ClientBase): Promise<void>;
}

export class PositionsMoved extends Error {
  override name = 'PositionsMoved';
  override message = 'the positions of the inbox have been moved by somebody else';
}

export class GroupPositions implements Positions {
  readonly #group: string;

  constructor(group: string) {
    this.#group = group;
  }

  async read(client: ClientBase): Promise<StoredPosition[]> {
    const { rows } = await client.query<Place & { offset: bigint; metadata: string }>(
      `SELECT topic_id AS "topicId", partition_id AS partition, committed_offset AS offset,
         convert_from(metadata, 'UTF8') AS metadata
       FROM kafka.consumer_offsets WHERE group_id = $1`,
      [this.#group],
    );
    return rows.map(({ metadata, ...row }) => {
      const told = /^seq (\d+)$/.exec(metadata)?.[1];
      return { ...row, told: told === undefined ? undefined : BigInt(told) };
    });
  }

  async insert(client: ClientBase, begin: readonly (Place & { readonly offset: bigint })[], told: bigint) {
    // Topics first, as everything that writes offsets locks them (src/storage/offsets.ts).
    await client.query(
      `WITH live AS MATERIALIZED (
         SELECT topic_id FROM kafka.topics WHERE topic_id = ANY ($2::int[]) ORDER BY topic_id FOR KEY SHARE)
       INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset, metadata)
       SELECT $1, topic_id, partition_id, next, convert_to('seq ' || $5::bigint, 'UTF8')
       FROM unnest($2::int[], $3::int[], $4::bigint[]) AS given (topic_id, partition_id, next) JOIN live USING (topic_id)
       ORDER BY topic_id, partition_id
       ON CONFLICT DO NOTHING`,
      [this.#group, ...columnsOf(begin), begin.map(({ offset }) => offset), told],
    );
  }

  async move(client: ClientBase, moves: readonly Move[], told: bigint): Promise<void> {
    const { rowCount } = await client.query(
      `UPDATE kafka.consumer_offsets o
       SET committed_offset = next, leader_epoch = -1, committed_at = now(), metadata = convert_to('seq ' || $6::bigint, 'UTF8')
       FROM unnest($2::int[], $3::int[], $4::bigint[], $5::bigint[]) AS given (topic_id, partition_id, expected, next)
       WHERE o.group_id = $1 AND o.topic_id = given.topic_id AND o.partition_id = given.partition_id
         AND o.committed_offset = given.expected`,
      [this.#group, ...columnsOf(moves), moves.map(({ expected }) => expected), moves.map(({ next }) => next), told],
    );
    if (rowCount !== moves.length) throw new PositionsMoved();
  }

  async keep(client: ClientBase): Promise<void> {
    await client.query('UPDATE kafka.consumer_offsets SET committed_at = now() WHERE group_id = $1', [this.#group]);
  }
}

export class RemotePositions implements Positions {
  readonly #inboxId: number;
  readonly #group: string;

  constructor(inboxId: number, group: string) {
    this.#inboxId = inboxId;
    this.#group = group;
  }

  async read(client: ClientBase): Promise<StoredPosition[]> {
    const { rows } = await client.query<StoredPosition>(
      `SELECT topic_id AS "topicId", partition_id AS partition, next_offset AS offset, told_seq AS told
       FROM kafka.inbox_positions WHERE inbox_id = $1 AND group_id = $2`,
      [this.#inboxId, this.#group],
    );
    return rows;
  }

  async insert(client: ClientBase, begin: readonly (Place & { readonly offset: bigint })[], told: bigint) {
    await client.query(
      `INSERT INTO kafka.inbox_positions (inbox_id, group_id, topic_id, partition_id, next_offset, told_seq)
       SELECT $1, $2, topic_id, partition_id, next, $6
       FROM unnest($3::int[], $4::int[], $5::bigint[]) AS given (topic_id, partition_id, next)
       ORDER BY topic_id, partition_id
       ON CONFLICT DO NOTHING`,
      [this.#inboxId, this.#group, ...columnsOf(begin), begin.map(({ offset }) => offset), told],
    );
  }

  async move(client: ClientBase, moves: readonly Move[], told: bigint): Promise<void> {
    const { rowCount } = await client.query(
      `UPDATE kafka.inbox_positions p SET next_offset = next, told_seq = $7
       FROM unnest($3::int[], $4::int[], $5::bigint[], $6::bigint[]) AS given (topic_id, partition_id, expected, next)
       WHERE p.inbox_id = $1 AND p.group_id = $2 AND p.topic_id = given.topic_id AND p.partition_id = given.partition_id
         AND p.next_offset = given.expected`,
      [
        ...[this.#inboxId, this.#group, ...columnsOf(moves)],
        ...[moves.map(({ expected }) => expected), moves.map(({ next }) => next), told],
      ],
    );
    if (rowCount !== moves.length) throw new PositionsMoved();
  }
}

const columnsOf = (places: readonly Place[]): [number[], number[]] => [
  places.map(({ topicId }) => topicId),
  places.map(({ partition }) => partition),
];
