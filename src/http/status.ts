// What the status page shows. server.ts gathers it from the parts; nothing here knows them.

export interface TopicStatus {
  readonly name: string;
  readonly partitions: number;
  readonly records: bigint;
  readonly bytes: bigint;
}

export interface GroupStatus {
  readonly id: string;
  readonly state: string;
  readonly members: number;
  /** Records between the committed offsets and the ends of the partitions. */
  readonly lag: bigint;
}

export interface Status {
  readonly version: string;
  readonly startedAt: Date;
  /** HOST:PORT, as clients are told. */
  readonly kafka: string;
  readonly database: string;
  readonly databaseBytes: bigint;
  readonly topics: readonly TopicStatus[];
  readonly groups: readonly GroupStatus[];
}
