// The broker's configs as DescribeConfigs tells them, by Kafka's names: the settings that Kafka has too, the defaults
// of topics, and a few that are fixed here but that tools ask for.
import { type SettingName, settingOf, settingsTable } from '../runtime/settings.ts';
import type { ConfigType } from '../storage/config-value.ts';
import { topicConfigEntries } from '../storage/topic-config.ts';
import type { BrokerContext } from './context.ts';

export interface BrokerConfigEntry {
  readonly name: string;
  readonly type: ConfigType;
  readonly value: string;
  readonly default: string;
  readonly doc: string;
}

/** Settings whose key is Kafka's name, with Kafka's type. Those that are defaults of topics come with the topic configs. */
const told: readonly (readonly [SettingName, ConfigType])[] = [
  ['autoCreateTopicsEnable', 'boolean'],
  ['connectionsMaxIdleMs', 'long'],
  ['fetchMaxBytes', 'int'],
  ['groupInitialRebalanceDelayMs', 'int'],
  ['groupMaxSessionTimeoutMs', 'int'],
  ['groupMaxSize', 'int'],
  ['groupMinSessionTimeoutMs', 'int'],
  ['logRetentionCheckIntervalMs', 'long'],
  ['maxConnections', 'int'],
  ['maxIncrementalFetchSessionCacheSlots', 'int'],
  ['nodeId', 'int'],
  ['numPartitions', 'int'],
  ['offsetMetadataMaxBytes', 'int'],
  ['offsetsRetentionMinutes', 'int'],
  ['producerIdExpirationMs', 'int'],
  ['socketRequestMaxBytes', 'int'],
];

const fixed: readonly (readonly [string, ConfigType, string, string])[] = [
  ['default.replication.factor', 'int', '1', 'Kafka’s copies of a partition. Postgres replicates.'],
  ['delete.topic.enable', 'boolean', 'true', 'Topics can be deleted.'],
  ['log.dirs', 'list', 'postgres', 'The log is in Postgres, schema kafka.'],
];

export function brokerConfigEntries(broker: BrokerContext): BrokerConfigEntry[] {
  const { settings, advertised, nodeId } = broker;
  const address = ({ host, port }: { host: string; port: number }) =>
    `PLAINTEXT://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const entries: BrokerConfigEntry[] = [
    {
      name: 'advertised.listeners',
      type: 'list',
      value: address(advertised),
      default: '',
      doc: settingOf('kafkaAdvertised').doc,
    },
    { name: 'broker.id', type: 'int', value: String(nodeId), default: '-1', doc: settingOf('nodeId').doc },
    {
      name: 'listeners',
      type: 'list',
      value: settings.kafka.map(address).join(','),
      default: settingsTable.kafka.default.map(address).join(','),
      doc: settingOf('kafka').doc,
    },
    ...told.map(([setting, type]) => {
      const { key: name, default: ours, doc } = settingOf(setting);
      return { name, type, value: String(settings[setting]), default: String(ours), doc };
    }),
    ...topicConfigEntries({}, broker.serverDefaults).flatMap(({ spec, value, synonyms }) => {
      if (spec.server === null) return [];
      return [{ name: spec.server, type: spec.type, value, default: synonyms.at(-1)!.value, doc: spec.doc }];
    }),
    ...fixed.map(([name, type, value, doc]) => ({ name, type, value, default: value, doc })),
  ];
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}
