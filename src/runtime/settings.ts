// The one table of settings. A key is written as it stands in millrace.yaml, `--key-with-dashes` as a flag and
// MILLRACE_KEY_WITH_UNDERSCORES in the environment; in code it is the property's name. Where Kafka's brokers
// have the setting, the key is Kafka's. docs/configuration.md and --help are made from this table.
import type { GivenDefinitions } from './definition.ts';
import {
  address,
  addresses,
  boolean,
  bytes,
  bytes32,
  count,
  milliseconds,
  minutes,
  oneOf,
  optional,
  path,
  type SettingType,
  text,
  texts,
} from './setting-types.ts';

export interface Setting<T> {
  readonly key: string;
  readonly group: string;
  readonly type: SettingType<T>;
  readonly default: T;
  /** What documentation says instead of an empty default. */
  readonly defaultText?: string;
  readonly doc: string;
  /** May hold a password: never printed, and in millrace.yaml only by reference (env:NAME, file:PATH). */
  readonly secret?: boolean;
}

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const day = 86_400_000;

/** Gives each entry its own value type; the order is that of the documentation. */
function define<T extends Record<string, unknown>>(
  table: { [K in keyof T]: Setting<T[K]> },
): {
  readonly [K in keyof T]: Setting<T[K]>;
} {
  return table;
}

export const settingsTable = define({
  kafka: {
    key: 'kafka',
    group: 'Listening',
    type: addresses,
    default: [{ host: '127.0.0.1', port: 9092 }],
    doc: 'Where Kafka clients connect; several addresses are separated by commas. Port 0 takes a free one.',
  },
  kafkaAdvertised: {
    key: 'kafka.advertised',
    group: 'Listening',
    type: optional(address),
    default: null,
    defaultText: 'the first Kafka listener; this machine’s name if that listens on every address',
    doc: 'The address that clients are told to connect to. Set it behind a proxy, NAT or a container’s port mapping.',
  },
  http: {
    key: 'http',
    group: 'Listening',
    type: address,
    default: { host: '127.0.0.1', port: 8080 },
    doc: 'Where the status page, /healthz, /readyz and /metrics are served.',
  },
  httpTlsCert: {
    key: 'http.tls.cert',
    group: 'Listening',
    type: optional(text),
    default: null,
    secret: true,
    doc: 'A certificate chain in PEM. With it and http.tls.key HTTP is served over TLS only, as HTTP/2 to those who speak it and HTTP/1.1.',
  },
  httpTlsKey: {
    key: 'http.tls.key',
    group: 'Listening',
    type: optional(text),
    default: null,
    secret: true,
    doc: 'The private key of http.tls.cert, in PEM.',
  },
  maxConnections: {
    key: 'max.connections',
    group: 'Listening',
    type: count({ min: 1 }),
    default: 10_000,
    doc: 'Kafka connections open at once; one more is closed as soon as it is accepted.',
  },
  connectionsMaxIdleMs: {
    key: 'connections.max.idle.ms',
    group: 'Listening',
    type: milliseconds({ min: 1000 }),
    default: 600_000,
    doc: 'A Kafka connection that asks nothing for this long is closed.',
  },
  databaseUrl: {
    key: 'database.url',
    group: 'Database',
    type: optional(text),
    default: null,
    defaultText: 'an embedded PostgreSQL in data.dir',
    doc: 'A PostgreSQL of your own, 14 or newer: postgres://user@host:5432/database. `env:NAME` and `file:PATH` take the URL from a variable or a file; in millrace.yaml a URL with a password must be given so.',
    secret: true,
  },
  dataDir: {
    key: 'data.dir',
    group: 'Database',
    type: path,
    default: '.millrace',
    doc: 'Where the embedded PostgreSQL keeps its data. Not used with database.url.',
  },
  databasePoolSize: {
    key: 'database.pool.size',
    group: 'Database',
    type: count({ min: 2, max: 1000 }),
    default: 10,
    doc: 'Most connections to the database for everything but the log’s own writers and readers.',
  },
  logWriterConnections: {
    key: 'log.writer.connections',
    group: 'Database',
    type: count({ min: 1, max: 64 }),
    default: 2,
    doc: 'Connections that append to the log: as many groups of batches are copied at a time. They commit in order.',
  },
  logReaderConnections: {
    key: 'log.reader.connections',
    group: 'Database',
    type: count({ min: 1, max: 64 }),
    default: 2,
    doc: 'Connections that read the log for consumers who are behind the tail cache.',
  },
  synchronousCommitAcks1: {
    key: 'acks1.synchronous.commit',
    group: 'Database',
    type: boolean,
    default: true,
    doc: 'Whether acks=1 waits for the disk, as acks=all always does. With false a producer that asked for acks=1 is answered sooner, and a crash of PostgreSQL may lose what it was told; consumers never see a record before it is on disk.',
  },
  autovacuumHotTables: {
    key: 'autovacuum.hot.tables',
    group: 'Database',
    type: boolean,
    default: true,
    doc: 'Vacuum the small tables that change all the time (committed offsets, groups) after every 1,000 changed rows. With false they follow the server’s own settings.',
  },
  numPartitions: {
    key: 'num.partitions',
    group: 'Topics',
    type: count({ min: 1, max: 100_000 }),
    default: 1,
    doc: 'Partitions of a topic that is made without a number of its own.',
  },
  autoCreateTopicsEnable: {
    key: 'auto.create.topics.enable',
    group: 'Topics',
    type: boolean,
    default: true,
    doc: 'Make a topic when a client first asks for it.',
  },
  logRetentionMs: {
    key: 'log.retention.ms',
    group: 'Topics',
    type: milliseconds({ min: -1 }),
    default: 7 * day,
    doc: 'How long records are kept, unless the topic says otherwise (retention.ms); -1 is for ever.',
  },
  logRetentionBytes: {
    key: 'log.retention.bytes',
    group: 'Topics',
    type: bytes({ min: -1 }),
    default: -1,
    doc: 'How many bytes of a partition are kept, unless the topic says otherwise (retention.bytes); -1 is no limit.',
  },
  logRetentionCheckIntervalMs: {
    key: 'log.retention.check.interval.ms',
    group: 'Topics',
    type: milliseconds({ min: 100 }),
    default: 300_000,
    doc: 'How often segments that are past their retention are looked for and dropped.',
  },
  segmentInterval: {
    key: 'segment.interval',
    group: 'Topics',
    type: oneOf('hourly', 'daily'),
    default: 'daily',
    doc: 'A topic’s segment is closed at the end of the hour or day (UTC). Retention drops whole segments.',
  },
  logRollJitterMs: {
    key: 'log.roll.jitter.ms',
    group: 'Topics',
    type: milliseconds(),
    default: 60_000,
    doc: 'Segments are closed by up to this much earlier, each topic’s by its own part, so that not all are made at once.',
  },
  logSegmentBytes: {
    key: 'log.segment.bytes',
    group: 'Topics',
    type: bytes({ min: MiB }),
    default: GiB,
    doc: 'A segment is also closed at this size, unless the topic says otherwise (segment.bytes).',
  },
  messageMaxBytes: {
    key: 'message.max.bytes',
    group: 'Topics',
    type: bytes32(),
    default: 1_048_588,
    doc: 'The largest record batch, unless the topic says otherwise (max.message.bytes).',
  },
  compressionType: {
    key: 'compression.type',
    group: 'Topics',
    type: oneOf('uncompressed', 'producer', 'gzip', 'snappy', 'lz4', 'zstd'),
    default: 'uncompressed',
    doc: 'How batches are stored, unless the topic says otherwise. `uncompressed` is what SQL can read in full; `producer` keeps the producer’s bytes.',
  },
  socketRequestMaxBytes: {
    key: 'socket.request.max.bytes',
    group: 'Memory',
    type: bytes32({ min: 1024 }),
    default: 100 * MiB,
    doc: 'The largest request; a connection that announces a larger one is closed.',
  },
  fetchMaxBytes: {
    key: 'fetch.max.bytes',
    group: 'Memory',
    type: bytes32({ min: 1024 }),
    default: 55 * MiB,
    doc: 'The most one Fetch answers, whatever the consumer allows.',
  },
  tailCacheBytes: {
    key: 'tail.cache.bytes',
    group: 'Memory',
    type: bytes(),
    default: 24 * MiB,
    doc: 'Memory for the newest batches of all partitions, which consumers who keep up are served from.',
  },
  connectionInFlightBytes: {
    key: 'connection.in.flight.bytes',
    group: 'Memory',
    type: bytes({ min: 65_536 }),
    default: 8 * MiB,
    doc: 'Requests and answers in flight of one connection, in bytes; past it the connection is not read until some are done. One larger request is let through alone.',
  },
  inFlightBytes: {
    key: 'in.flight.bytes',
    group: 'Memory',
    type: bytes({ min: MiB }),
    default: 64 * MiB,
    doc: 'The same for all connections together, half of it for requests and half for answers.',
  },
  maxIncrementalFetchSessionCacheSlots: {
    key: 'max.incremental.fetch.session.cache.slots',
    group: 'Memory',
    type: count(),
    default: 1000,
    doc: 'Fetch sessions kept (KIP-227).',
  },
  groupMemoryBytes: {
    key: 'group.memory.bytes',
    group: 'Memory',
    type: bytes({ min: MiB }),
    default: 32 * MiB,
    doc: 'Memory for the members of all consumer groups; past it no more can join.',
  },
  groupInitialRebalanceDelayMs: {
    key: 'group.initial.rebalance.delay.ms',
    group: 'Groups and producers',
    type: milliseconds(),
    default: 0,
    doc: 'How long an empty group waits for more members before its first rebalance. Kafka’s default is 3000, which spares a large group rebalances as its members start one by one; 0 lets a first consumer begin at once.',
  },
  groupMinSessionTimeoutMs: {
    key: 'group.min.session.timeout.ms',
    group: 'Groups and producers',
    type: milliseconds({ min: 1 }),
    default: 6000,
    doc: 'The shortest session timeout a member may ask for.',
  },
  groupMaxSessionTimeoutMs: {
    key: 'group.max.session.timeout.ms',
    group: 'Groups and producers',
    type: milliseconds({ min: 1 }),
    default: 1_800_000,
    doc: 'The longest session timeout a member may ask for.',
  },
  groupMaxSize: {
    key: 'group.max.size',
    group: 'Groups and producers',
    type: count({ min: 1 }),
    default: 2_147_483_647,
    doc: 'The most members a group may have.',
  },
  offsetsRetentionMinutes: {
    key: 'offsets.retention.minutes',
    group: 'Groups and producers',
    type: minutes({ min: 1 }),
    default: 10_080,
    doc: 'How long the committed offsets of a group without members are kept.',
  },
  offsetMetadataMaxBytes: {
    key: 'offset.metadata.max.bytes',
    group: 'Groups and producers',
    type: bytes32(),
    default: 4096,
    doc: 'The longest note that may come with a committed offset.',
  },
  producerIdExpirationMs: {
    key: 'producer.id.expiration.ms',
    group: 'Groups and producers',
    type: milliseconds({ min: 1 }),
    default: day,
    doc: 'How long an idempotent producer that writes nothing is remembered.',
  },
  sqlProduce: {
    key: 'sql.produce',
    group: 'Capture',
    type: oneOf('on', 'off'),
    default: 'off',
    doc: 'Whether kafka.produce() works in SQL. It takes a replication slot, which holds WAL while Millrace is not running, and PostgreSQL then decodes all that is written, the log included.',
  },
  captureSpoolDir: {
    key: 'capture.spool.dir',
    group: 'Capture',
    type: optional(path),
    default: null,
    defaultText: 'spool in data.dir with the embedded PostgreSQL, else in the system’s temporary directory',
    doc: 'Where capture keeps large transactions that have not been committed yet. Emptied at each start.',
  },
  deliverJwtKey: {
    key: 'deliver.jwt.key',
    group: 'Delivery',
    type: optional(text),
    default: null,
    secret: true,
    doc: 'What tokens are verified with: a secret (HS256), a public key in PEM (RS256, ES256), or a JSON Web Key Set. A file is read again when it changes. Without it and deliver.url.key events are read from this machine only.',
  },
  deliverJwtIssuer: {
    key: 'deliver.jwt.issuer',
    group: 'Delivery',
    type: optional(text),
    default: null,
    doc: 'The iss that tokens must have.',
  },
  deliverJwtAudience: {
    key: 'deliver.jwt.audience',
    group: 'Delivery',
    type: optional(text),
    default: null,
    doc: 'The aud that tokens must have.',
  },
  deliverUrlKey: {
    key: 'deliver.url.key',
    group: 'Delivery',
    type: optional(text),
    default: null,
    secret: true,
    doc: 'What signed URLs are signed with, 32 bytes at least. A file is read again when it changes.',
  },
  deliverCorsOrigins: {
    key: 'deliver.cors.origins',
    group: 'Delivery',
    type: texts,
    default: [],
    doc: 'Origins whose pages may read events, separated by commas; * for all.',
  },
  deliverMaxConnections: {
    key: 'deliver.max.connections',
    group: 'Delivery',
    type: count({ min: 1 }),
    default: 10_000,
    doc: 'Event streams open at once; one more is answered 503 with Retry-After.',
  },
  deliverMaxConnectionsPerSubscriber: {
    key: 'deliver.max.connections.per.subscriber',
    group: 'Delivery',
    type: count({ min: 1 }),
    default: 10,
    doc: 'Event streams of one subscriber open at once; one more is answered 429.',
  },
  deliverRequestsPerSecond: {
    key: 'deliver.requests.per.second',
    group: 'Delivery',
    type: count({ min: 1 }),
    default: 20,
    doc: 'Requests of one subscriber, in bursts of five seconds’ worth; one more is answered 429.',
  },
  deliverBufferBytes: {
    key: 'deliver.buffer.bytes',
    group: 'Delivery',
    type: bytes32({ min: 1024 }),
    default: 256 * 1024,
    doc: 'What may wait for one client. Past it the client is sent no more until it has taken that; then the rest is read from the inbox.',
  },
  deliverStallMs: {
    key: 'deliver.stall.ms',
    group: 'Delivery',
    type: milliseconds({ min: 100 }),
    default: 30_000,
    doc: 'How long a client may take nothing of what was sent to it before it is disconnected.',
  },
  deliverHeartbeatMs: {
    key: 'deliver.heartbeat.ms',
    group: 'Delivery',
    type: milliseconds({ min: 1000 }),
    default: 15_000,
    doc: 'How often an event stream carries a comment, so that a lost connection is noticed.',
  },
  deliverCompression: {
    key: 'deliver.compression',
    group: 'Delivery',
    type: boolean,
    default: true,
    doc: 'Compress event streams with gzip for clients that accept it. It takes about 20 KiB a stream.',
  },
  deliverWebhookWorkers: {
    key: 'deliver.webhook.workers',
    group: 'Delivery',
    type: count({ min: 0, max: 10_000 }),
    default: 64,
    doc: 'Webhook requests of this process at once, for each inbox; 0 sends none. Each process takes its share of an inbox’s sixteen lanes.',
  },
  deliverWebhookLeaseMs: {
    key: 'deliver.webhook.lease.ms',
    group: 'Delivery',
    type: milliseconds({ min: 100, max: 3_600_000 }),
    default: 60_000,
    doc: 'How long a lane stays with a process that is not heard of any more; then another sends what is in it. Renewed every third of it. At least twice an inbox’s `timeout`, or that inbox’s webhooks are not sent.',
  },
  deliverWebhookPollMs: {
    key: 'deliver.webhook.poll.ms',
    group: 'Delivery',
    type: milliseconds({ min: 100, max: 3_600_000 }),
    default: 10_000,
    doc: 'How often webhooks look for themselves whether there is something new, should a notification be lost.',
  },
  deliverWebhookAllow: {
    key: 'deliver.webhook.allow',
    group: 'Delivery',
    type: texts,
    default: [],
    doc: 'Addresses and networks (`10.1.0.0/16`) that webhooks may be sent to though they are private, of this machine, or reserved otherwise; separated by commas.',
  },
  broker: {
    key: 'broker',
    group: 'Running',
    type: boolean,
    default: true,
    doc: 'false: serve events over HTTP only, beside a Millrace that leads the log of the same database.url.',
  },
  nodeId: {
    key: 'node.id',
    group: 'Running',
    type: count(),
    default: 1,
    doc: 'This broker’s id.',
  },
  shutdownTimeoutMs: {
    key: 'shutdown.timeout.ms',
    group: 'Running',
    type: milliseconds({ min: 100 }),
    default: 10_000,
    doc: 'How long SIGTERM and Ctrl-C may take to finish what is under way; then it is given up. A second signal gives up at once.',
  },
  logLevel: {
    key: 'log.level',
    group: 'Running',
    type: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
    default: 'info',
    doc: 'The least level of log lines on stderr.',
  },
  logConnections: {
    key: 'log.connections',
    group: 'Running',
    type: boolean,
    default: false,
    doc: 'Log every Kafka connection that opens or closes.',
  },
  profiling: {
    key: 'profiling',
    group: 'Running',
    type: boolean,
    default: false,
    doc: 'Serve /debug/cpu-profile?seconds=N and /debug/heap-snapshot over HTTP, to this machine only. A heap snapshot holds whatever was in memory.',
  },
});

type Table = typeof settingsTable;
export type SettingName = keyof Table;
type ValueOf<S> = S extends Setting<infer T> ? T : never;
export type Settings = { readonly [K in SettingName]: ValueOf<Table[K]> } & {
  /** The part `capture` of millrace.yaml, and flags `--capture`; read in src/capture/definition.ts. */
  readonly captures: GivenDefinitions;
  /** The part `sinks`: src/sink/definition.ts. */
  readonly sinks: GivenDefinitions;
  /** The part `deliver`: src/deliver/definition.ts. */
  readonly inboxes: GivenDefinitions;
  /** The part `mirror`: src/mirror/definition.ts. */
  readonly mirrors: GivenDefinitions;
  /** Paths of those that were given as file:PATH. */
  readonly secretFiles: Readonly<Partial<Record<SettingName, string>>>;
};

export const settingNames = Object.keys(settingsTable) as SettingName[];

/** The setting without its value type, for code that treats all alike. */
export function settingOf(name: SettingName): Setting<unknown> {
  return settingsTable[name] as Setting<unknown>;
}

export const flagOf = (key: string): string => `--${key.replaceAll('.', '-')}`;
export const variableOf = (key: string): string => `MILLRACE_${key.replaceAll('.', '_').toUpperCase()}`;
