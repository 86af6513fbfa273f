// Consumer groups as of their last completed rebalance, in kafka.consumer_groups, so that members go on over a restart
// of the broker. Saves are written as committed offsets are (offsets.ts): while one statement runs others gather, and
// of a group the last snapshot wins. A group without members keeps its row as long as it has committed offsets.
import type pg from 'pg';
import type { Logger } from 'pino';
import type { Pool } from '../postgres/pool.ts';
import type { Term } from './topics.ts';
import { cannotBeStored, StorageError, WriteLane } from './write-lane.ts';

export interface StoredMember {
  readonly memberId: string;
  readonly groupInstanceId: string | null;
  readonly clientId: string;
  readonly clientHost: string;
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly protocols: readonly { readonly name: string; readonly metadata: Buffer }[];
  readonly assignment: Buffer;
}

export interface StoredGroup {
  readonly groupId: string;
  readonly protocolType: string;
  readonly generation: number;
  readonly protocol: string | null;
  readonly leader: string | null;
  readonly members: readonly StoredMember[];
}

export interface GroupSummary {
  readonly groupId: string;
  readonly protocolType: string;
}

export interface GroupStoreOptions {
  readonly pool: Pool;
  readonly logger: Logger;
  readonly term?: () => Term;
}

interface Save {
  readonly group: StoredGroup;
  resolve(): void;
  reject(error: Error): void;
}

/** As the table's jsonb has it: names as in SQL, bytes in base64. */
interface MemberJson {
  member_id: string;
  group_instance_id: string | null;
  client_id: string;
  client_host: string;
  session_timeout_ms: number;
  rebalance_timeout_ms: number;
  protocols: { name: string; metadata: string }[];
  assignment: string;
}

interface GroupRow {
  group_id: string;
  protocol_type: string;
  generation: number;
  protocol: string | null;
  leader: string | null;
  members: MemberJson[];
}

const columns = 'group_id, protocol_type, generation, protocol, leader, members';

// An empty group stays, offsets or not, until dropUnused: what was listed a moment ago can be described and deleted.
const upsert = `
  INSERT INTO kafka.consumer_groups (${columns})
  SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::jsonb[])
    AS given (group_id, protocol_type, generation, protocol, leader, members)
  ORDER BY group_id
  ON CONFLICT (group_id) DO UPDATE
    SET protocol_type = excluded.protocol_type, generation = excluded.generation, protocol = excluded.protocol,
        leader = excluded.leader, members = excluded.members, updated_at = now()`;

export class GroupStore {
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #lane: WriteLane;
  #gathering: Save[] | undefined;

  constructor({ pool, logger, term }: GroupStoreOptions) {
    this.#pool = pool;
    this.#logger = logger;
    this.#lane = new WriteLane(pool, term);
  }

  /** Resolves when this snapshot, or a later one of the group, has been committed. Throws StorageError. */
  save(group: StoredGroup): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#gather().push({ group, resolve, reject });
    });
  }

  /** The groups with members. One that cannot be read is left out: its members will join anew. */
  async loadAll(): Promise<StoredGroup[]> {
    const rows = await this.#read(`SELECT ${columns} FROM kafka.consumer_groups WHERE members <> '[]'`, []);
    return rows.flatMap(row => this.#parse(row) ?? []);
  }

  async load(groupId: string): Promise<StoredGroup | undefined> {
    const [row] = await this.#read(`SELECT ${columns} FROM kafka.consumer_groups WHERE group_id = $1`, [groupId]);
    return row && this.#parse(row);
  }

  /** Every stored group, or those of `groupIds`. */
  async list(groupIds?: readonly string[]): Promise<GroupSummary[]> {
    const rows = await this.#read(
      `SELECT group_id, protocol_type FROM kafka.consumer_groups ${groupIds ? 'WHERE group_id = ANY ($1::text[])' : ''}`,
      groupIds ? [groupIds] : [],
    );
    return rows.map(row => ({ groupId: row.group_id, protocolType: row.protocol_type }));
  }

  /** Returns those of the groups that were stored. */
  async delete(groupIds: readonly string[]): Promise<Set<string>> {
    const { rows } = await this.#change(client =>
      client.query<{ group_id: string }>(
        'DELETE FROM kafka.consumer_groups WHERE group_id = ANY ($1::text[]) RETURNING group_id',
        [groupIds],
      ),
    );
    return new Set(rows.map(row => row.group_id));
  }

  /** Deletes groups that have neither members nor committed offsets; `live` ones are let be. */
  async dropUnused(live: readonly string[]): Promise<void> {
    await this.#change(client =>
      client.query(
        `DELETE FROM kafka.consumer_groups g WHERE members = '[]' AND group_id <> ALL ($1::text[])
           AND NOT EXISTS (SELECT FROM kafka.consumer_offsets o WHERE o.group_id = g.group_id)`,
        [live],
      ),
    );
  }

  /** Resolves when nothing is being written any more. */
  async idle(): Promise<void> {
    await this.#lane.idle();
  }

  #gather(): Save[] {
    if (this.#gathering) return this.#gathering;
    const saves: Save[] = [];
    this.#gathering = saves;
    this.#lane
      .transaction(async client => {
        if (this.#gathering === saves) this.#gathering = undefined;
        await this.#write(client, saves);
      })
      .then(
        () => {
          for (const { resolve } of saves) resolve();
        },
        (error: Error) => {
          if (this.#gathering === saves) this.#gathering = undefined;
          if (cannotBeStored(error) && saves.length > 1) this.#writeApart(saves);
          else this.#fail(saves, error);
        },
      );
    return saves;
  }

  /** One of the snapshots holds something that cannot be stored; it must not fail the others. */
  #writeApart(saves: readonly Save[]): void {
    const last = new Map(saves.map(save => [save.group.groupId, save.group]));
    for (const save of saves) {
      this.#lane
        .transaction(client => this.#write(client, [{ ...save, group: last.get(save.group.groupId)! }]))
        .then(save.resolve, (error: Error) => this.#fail([save], error));
    }
  }

  async #write(client: pg.PoolClient, saves: readonly Save[]): Promise<void> {
    const groups = [...new Map(saves.map(({ group }) => [group.groupId, group])).values()];
    await client.query({
      name: 'groups-save',
      text: upsert,
      values: [
        groups.map(group => group.groupId),
        groups.map(group => group.protocolType),
        groups.map(group => group.generation),
        groups.map(group => group.protocol),
        groups.map(group => group.leader),
        groups.map(group => JSON.stringify(group.members.map(toJson))),
      ],
    });
  }

  #fail(saves: readonly Save[], cause: Error): void {
    const error = new StorageError('could not save groups', cause);
    this.#logger.error({ err: cause, groups: saves.length }, 'could not save groups');
    for (const { reject } of saves) reject(error);
  }

  async #change<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    this.#gathering = undefined; // saves that come later are written later
    try {
      return await this.#lane.transaction(work);
    } catch (error) {
      this.#logger.error({ err: error }, 'could not delete groups');
      throw new StorageError('could not delete groups', error as Error);
    }
  }

  #parse(row: GroupRow): StoredGroup | undefined {
    try {
      return fromRow(row);
    } catch (error) {
      this.#logger.error({ err: error, group: row.group_id }, 'could not read a stored group');
      return undefined;
    }
  }

  async #read(text: string, values: unknown[]): Promise<GroupRow[]> {
    try {
      return (await this.#pool.query<GroupRow>(text, values)).rows;
    } catch (error) {
      this.#logger.error({ err: error }, 'could not read groups');
      throw new StorageError('could not read groups', error as Error);
    }
  }
}

function toJson(member: StoredMember): MemberJson {
  return {
    member_id: member.memberId,
    group_instance_id: member.groupInstanceId,
    client_id: member.clientId,
    client_host: member.clientHost,
    session_timeout_ms: member.sessionTimeoutMs,
    rebalance_timeout_ms: member.rebalanceTimeoutMs,
    protocols: member.protocols.map(({ name, metadata }) => ({ name, metadata: metadata.toString('base64') })),
    assignment: member.assignment.toString('base64'),
  };
}

function fromRow(row: GroupRow): StoredGroup {
  return {
    groupId: row.group_id,
    protocolType: row.protocol_type,
    generation: row.generation,
    protocol: row.protocol,
    leader: row.leader,
    members: row.members.map(member => ({
      memberId: member.member_id,
      groupInstanceId: member.group_instance_id,
      clientId: member.client_id,
      clientHost: member.client_host,
      sessionTimeoutMs: member.session_timeout_ms,
      rebalanceTimeoutMs: member.rebalance_timeout_ms,
      protocols: member.protocols.map(({ name, metadata }) => ({ name, metadata: Buffer.from(metadata, 'base64') })),
      assignment: Buffer.from(member.assignment, 'base64'),
    })),
  };
}
