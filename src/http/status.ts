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

export interface CaptureSummary {
  readonly name: string;
  readonly state: string;
  /** Why it is not streaming, and the way out. */
  readonly reason: string | undefined;
  readonly hint: string | undefined;
  readonly tables: readonly string[];
  readonly records: number;
  readonly lagMs: number;
  /** Tables that are left out, or of which something is. */
  readonly notices: readonly { readonly table: string; readonly reason: string; readonly hint: string }[];
  readonly slot: { readonly retainedBytes: bigint } | undefined;
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
  readonly captures: readonly CaptureSummary[];
}
