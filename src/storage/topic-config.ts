// What a topic's configs come to: the override, else what the broker is set to, else the default. For validation,
// for what the log obeys (effectiveConfig) and for what DescribeConfigs tells.
import { type ConfigValue, formatConfigValue, parseConfigValue } from './config-value.ts';
import {
  type CompressionType,
  type TimestampType,
  type TopicConfigName,
  type TopicConfigSpec,
  topicConfigSpec,
  topicConfigSpecs,
} from './topic-config-table.ts';
import type { TopicConfig } from './topics.ts';

/** Values of broker configs by Kafka's names. `set` tells one that somebody chose from our default. */
export type ServerDefaults = ReadonlyMap<string, { readonly value: string; readonly set: boolean }>;

/** What the log obeys. Without bound is Infinity. */
export interface TopicSettings {
  readonly compact: boolean;
  readonly delete: boolean;
  readonly compressionType: CompressionType;
  /** For the codec of compressionType, where its level can be chosen. */
  readonly compressionLevel: number | undefined;
  readonly maxMessageBytes: number;
  readonly retentionMs: number;
  readonly retentionBytes: number;
  readonly segmentMs: number;
  readonly segmentJitterMs: number;
  readonly segmentBytes: number;
  readonly timestampType: TimestampType;
  readonly timestampBeforeMaxMs: number;
  readonly timestampAfterMaxMs: number;
}

// Asked for at every append: computed once for each set of overrides, which change as a whole.
const settings = new WeakMap<ServerDefaults, WeakMap<TopicConfig, TopicSettings>>();

export function effectiveConfig(topic: { readonly config: TopicConfig }, defaults: ServerDefaults): TopicSettings {
  let ofDefaults = settings.get(defaults);
  if (ofDefaults === undefined) {
    ofDefaults = new WeakMap();
    settings.set(defaults, ofDefaults);
  }
  let found = ofDefaults.get(topic.config);
  if (found === undefined) {
    found = computeSettings(topic.config, defaults);
    ofDefaults.set(topic.config, found);
  }
  return found;
}

function computeSettings(overrides: TopicConfig, defaults: ServerDefaults): TopicSettings {
  const value = (name: TopicConfigName): ConfigValue => {
    const spec = topicConfigSpec(name)!;
    return parseConfigValue(spec, entryOf(spec, overrides, defaults).value);
  };
  const number = (name: TopicConfigName) => Number(value(name));
  const bound = (name: TopicConfigName) => (number(name) < 0 ? Infinity : number(name));
  const policy = value('cleanup.policy') as readonly string[];
  const compressionType = value('compression.type') as CompressionType;
  return {
    compact: policy.includes('compact'),
    delete: policy.includes('delete'),
    compressionType,
    compressionLevel:
      compressionType === 'gzip' || compressionType === 'zstd'
        ? number(`compression.${compressionType}.level`)
        : undefined,
    maxMessageBytes: number('max.message.bytes'),
    retentionMs: bound('retention.ms'),
    retentionBytes: bound('retention.bytes'),
    segmentMs: number('segment.ms'),
    segmentJitterMs: number('segment.jitter.ms'),
    segmentBytes: number('segment.bytes'),
    timestampType: value('message.timestamp.type') as TimestampType,
    timestampBeforeMaxMs: number('message.timestamp.before.max.ms'),
    timestampAfterMaxMs: number('message.timestamp.after.max.ms'),
  };
}

/** Why these overrides may not be set, or undefined when they may. */
export function overridesProblem(overrides: TopicConfig, defaults: ServerDefaults): string | undefined {
  for (const [name, text] of Object.entries(overrides)) {
    const spec = topicConfigSpec(name);
    if (spec === undefined) return `there is no topic config called ${name}`;
    try {
      parseConfigValue(spec, text);
    } catch (error) {
      return (error as Error).message;
    }
  }
  const long = (name: TopicConfigName) => BigInt(entryOf(topicConfigSpec(name)!, overrides, defaults).value);
  const [minLag, maxLag] = [long('min.compaction.lag.ms'), long('max.compaction.lag.ms')];
  if (minLag > maxLag) return `min.compaction.lag.ms (${minLag}) is more than max.compaction.lag.ms (${maxLag})`;
  if (entryOf(topicConfigSpec('remote.storage.enable')!, overrides, defaults).value === 'true') {
    return 'remote.storage.enable: there is no tiered storage here';
  }
  return undefined;
}

export type ConfigSource = 'topic' | 'static' | 'default';

export interface TopicConfigEntry {
  readonly spec: TopicConfigSpec;
  readonly value: string;
  readonly source: ConfigSource;
  /** Where the value could come from, the one that counts first. */
  readonly synonyms: readonly { readonly name: string; readonly value: string; readonly source: ConfigSource }[];
}

export function topicConfigEntries(overrides: TopicConfig, defaults: ServerDefaults): TopicConfigEntry[] {
  return topicConfigSpecs.map(spec => entryOf(spec, overrides, defaults));
}

function entryOf(spec: TopicConfigSpec, overrides: TopicConfig, defaults: ServerDefaults): TopicConfigEntry {
  const synonyms: TopicConfigEntry['synonyms'][number][] = [];
  const add = (name: string, text: string, source: ConfigSource) => {
    synonyms.push({ name, value: formatConfigValue(parseConfigValue(spec, text)), source });
  };
  const override = overrides[spec.name];
  if (override !== undefined) add(spec.name, override, 'topic');
  const server = spec.server === null ? undefined : defaults.get(spec.server);
  if (server?.set === true) add(spec.server!, server.value, 'static');
  if (spec.server !== null) add(spec.server, server?.set === false ? server.value : spec.default, 'default');
  const first = synonyms[0];
  return { spec, value: first?.value ?? spec.default, source: first?.source ?? 'default', synonyms };
}
