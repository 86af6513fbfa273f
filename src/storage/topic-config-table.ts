// The topic configs that Kafka 4 knows, by name: type, default, bounds, and whether they do anything here.
// docs/topics.md is tested against this table.
import type { ConfigSpec } from './config-value.ts';

export interface TopicConfigSpec extends ConfigSpec {
  readonly default: string;
  /** The broker config that sets it for topics without an override. */
  readonly server: string | null;
  /** Without effect here: kept, told, and that is all. */
  readonly ignored?: true;
  readonly doc: string;
}

const longMax = '9223372036854775807';
const day = 86_400_000;
const replicas = /^(\*|\d+:\d+)$/;

export const compressionTypes = ['uncompressed', 'zstd', 'lz4', 'snappy', 'gzip', 'producer'] as const;
export type CompressionType = (typeof compressionTypes)[number];
export const timestampTypes = ['CreateTime', 'LogAppendTime'] as const;
export type TimestampType = (typeof timestampTypes)[number];

const specs = [
  {
    name: 'cleanup.policy',
    type: 'list',
    default: 'delete',
    server: 'log.cleanup.policy',
    allowed: ['compact', 'delete'],
    doc: 'With delete, old segments are dropped by retention.ms and retention.bytes. With compact alone nothing is ever dropped. Compaction itself is not done yet.',
  },
  {
    name: 'compression.gzip.level',
    type: 'int',
    default: '-1',
    server: 'compression.gzip.level',
    min: -1,
    max: 9,
    except: 0,
    doc: 'Level used when compression.type is gzip; -1 is the codec’s own default.',
  },
  {
    name: 'compression.lz4.level',
    type: 'int',
    default: '9',
    server: 'compression.lz4.level',
    min: 1,
    max: 17,
    ignored: true,
    doc: 'Level used when compression.type is lz4: the encoder here has only one.',
  },
  {
    name: 'compression.type',
    type: 'string',
    default: 'uncompressed',
    server: 'compression.type',
    allowed: compressionTypes,
    doc: 'How batches are stored. uncompressed: SQL reads every record, whatever codec the producer used. producer: as they came. A codec: compressed with it.',
  },
  {
    name: 'compression.zstd.level',
    type: 'int',
    default: '3',
    server: 'compression.zstd.level',
    min: -131_072,
    max: 22,
    doc: 'Level used when compression.type is zstd.',
  },
  {
    name: 'delete.retention.ms',
    type: 'long',
    default: String(day),
    server: 'log.cleaner.delete.retention.ms',
    min: 0,
    ignored: true,
    doc: 'How long compaction keeps a tombstone.',
  },
  {
    name: 'file.delete.delay.ms',
    type: 'long',
    default: '60000',
    server: 'log.segment.delete.delay.ms',
    min: 0,
    ignored: true,
    doc: 'Pause before a deleted file is removed.',
  },
  {
    name: 'flush.messages',
    type: 'long',
    default: longMax,
    server: 'log.flush.interval.messages',
    min: 1,
    ignored: true,
    doc: 'Records between two flushes. Postgres flushes at every COMMIT.',
  },
  {
    name: 'flush.ms',
    type: 'long',
    default: longMax,
    server: 'log.flush.interval.ms',
    min: 0,
    ignored: true,
    doc: 'Time between two flushes. Postgres flushes at every COMMIT.',
  },
  {
    name: 'follower.replication.throttled.replicas',
    type: 'list',
    default: '',
    server: null,
    pattern: replicas,
    ignored: true,
    doc: 'Replicas whose replication is throttled on the follower’s side.',
  },
  {
    name: 'index.interval.bytes',
    type: 'int',
    default: '4096',
    server: 'log.index.interval.bytes',
    min: 0,
    ignored: true,
    doc: 'Bytes between two entries of an offset index file.',
  },
  {
    name: 'leader.replication.throttled.replicas',
    type: 'list',
    default: '',
    server: null,
    pattern: replicas,
    ignored: true,
    doc: 'Replicas whose replication is throttled on the leader’s side.',
  },
  {
    name: 'local.retention.bytes',
    type: 'long',
    default: '-2',
    server: 'log.local.retention.bytes',
    min: -2,
    ignored: true,
    doc: 'Bytes kept locally where tiered storage is on.',
  },
  {
    name: 'local.retention.ms',
    type: 'long',
    default: '-2',
    server: 'log.local.retention.ms',
    min: -2,
    ignored: true,
    doc: 'Time kept locally where tiered storage is on.',
  },
  {
    name: 'max.compaction.lag.ms',
    type: 'long',
    default: longMax,
    server: 'log.cleaner.max.compaction.lag.ms',
    min: 1,
    ignored: true,
    doc: 'Longest time a record may wait for compaction.',
  },
  {
    name: 'max.message.bytes',
    type: 'int',
    default: '1048588',
    server: 'message.max.bytes',
    min: 0,
    doc: 'Largest record batch a producer may send, in bytes, as it sends it.',
  },
  {
    name: 'message.timestamp.after.max.ms',
    type: 'long',
    default: '3600000',
    server: 'log.message.timestamp.after.max.ms',
    min: 0,
    doc: 'How far a record’s timestamp may be ahead of the broker’s clock, where message.timestamp.type is CreateTime.',
  },
  {
    name: 'message.timestamp.before.max.ms',
    type: 'long',
    default: longMax,
    server: 'log.message.timestamp.before.max.ms',
    min: 0,
    doc: 'How far a record’s timestamp may be behind the broker’s clock, where message.timestamp.type is CreateTime.',
  },
  {
    name: 'message.timestamp.type',
    type: 'string',
    default: 'CreateTime',
    server: 'log.message.timestamp.type',
    allowed: timestampTypes,
    doc: 'Whether a record keeps the producer’s timestamp or gets the broker’s at the time of the append.',
  },
  {
    name: 'min.cleanable.dirty.ratio',
    type: 'double',
    default: '0.5',
    server: 'log.cleaner.min.cleanable.ratio',
    min: 0,
    max: 1,
    ignored: true,
    doc: 'Share of not yet compacted records at which compaction begins.',
  },
  {
    name: 'min.compaction.lag.ms',
    type: 'long',
    default: '0',
    server: 'log.cleaner.min.compaction.lag.ms',
    min: 0,
    ignored: true,
    doc: 'Shortest time a record stays before compaction may take it.',
  },
  {
    name: 'min.insync.replicas',
    type: 'int',
    default: '1',
    server: 'min.insync.replicas',
    min: 1,
    ignored: true,
    doc: 'Replicas that must have a record before it is acknowledged. Here a record is acknowledged after its COMMIT; replicas are those of Postgres (synchronous_standby_names).',
  },
  {
    name: 'preallocate',
    type: 'boolean',
    default: 'false',
    server: 'log.preallocate',
    ignored: true,
    doc: 'Whether a segment file is allocated when it is made.',
  },
  {
    name: 'remote.log.copy.disable',
    type: 'boolean',
    default: 'false',
    server: null,
    ignored: true,
    doc: 'Whether tiered storage stops copying.',
  },
  {
    name: 'remote.log.delete.on.disable',
    type: 'boolean',
    default: 'false',
    server: null,
    ignored: true,
    doc: 'Whether tiered data is deleted when tiered storage is turned off.',
  },
  {
    name: 'remote.storage.enable',
    type: 'boolean',
    default: 'false',
    server: null,
    doc: 'Tiered storage. There is none here: true is refused.',
  },
  {
    name: 'retention.bytes',
    type: 'long',
    default: '-1',
    server: 'log.retention.bytes',
    doc: 'Bytes a partition may hold before its oldest segments are dropped; negative for no bound.',
  },
  {
    name: 'retention.ms',
    type: 'long',
    default: String(7 * day),
    server: 'log.retention.ms',
    min: -1,
    doc: 'Age of a segment’s newest record at which the segment is dropped; -1 for never.',
  },
  {
    name: 'segment.bytes',
    type: 'int',
    default: '1073741824',
    server: 'log.segment.bytes',
    min: 1_048_576,
    doc: 'Size at which a new segment is begun. A segment holds all of a topic’s partitions.',
  },
  {
    name: 'segment.index.bytes',
    type: 'int',
    default: '10485760',
    server: 'log.index.size.max.bytes',
    min: 4,
    ignored: true,
    doc: 'Size of an offset index file.',
  },
  {
    name: 'segment.jitter.ms',
    type: 'long',
    default: '0',
    server: 'log.roll.jitter.ms',
    min: 0,
    doc: 'By how much earlier, at the most, a segment is closed than segment.ms has it; each topic has its own part of it, and none more than half of segment.ms.',
  },
  {
    name: 'segment.ms',
    type: 'long',
    default: String(7 * day),
    server: 'log.roll.ms',
    min: 1,
    doc: 'Length of the intervals, counted from 1970-01-01 UTC, at whose ends segments are closed: with 86400000 a segment holds a day. Less than a minute counts as a minute.',
  },
  {
    name: 'unclean.leader.election.enable',
    type: 'boolean',
    default: 'false',
    server: 'unclean.leader.election.enable',
    ignored: true,
    doc: 'Whether a replica that lags may lead. There is one copy here, Postgres’s.',
  },
] as const satisfies readonly TopicConfigSpec[];

export type TopicConfigName = (typeof specs)[number]['name'];

export const topicConfigSpecs: readonly TopicConfigSpec[] = specs;
const specByName: ReadonlyMap<string, TopicConfigSpec> = new Map(specs.map(spec => [spec.name, spec]));

export function topicConfigSpec(name: string): TopicConfigSpec | undefined {
  return specByName.get(name);
}
