// What topics have where they override nothing, as the settings have it, by Kafka's names of the broker configs.
import { type Settings, settingNames, settingOf } from '../runtime/settings.ts';
import type { ServerDefaults } from './topic-config.ts';
import { topicConfigSpecs } from './topic-config-table.ts';

export function serverDefaults(settings: Settings): ServerDefaults {
  const names = new Set(topicConfigSpecs.map(spec => spec.server));
  const defaults = new Map<string, { value: string; set: boolean }>();
  for (const setting of settingNames) {
    const { key, default: ours } = settingOf(setting);
    if (names.has(key)) defaults.set(key, { value: String(settings[setting]), set: settings[setting] !== ours });
  }
  const { segmentInterval } = settings;
  defaults.set('log.roll.ms', {
    value: segmentInterval === 'hourly' ? '3600000' : '86400000',
    set: segmentInterval !== settingOf('segmentInterval').default,
  });
  return defaults;
}
