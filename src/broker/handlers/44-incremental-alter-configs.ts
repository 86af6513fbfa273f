// IncrementalAlterConfigs, versions 0 and 1 (KIP-339): sets and deletes a topic's overrides, appends to and subtracts
// from those that are lists. A resource is changed whole or not at all.
// Differs from Kafka: only topics can be altered; broker configs are settings and read-only.
import { ErrorCode } from '../../protocol/errors.ts';
import { IncrementalAlterConfigs } from '../../protocol/messages/44-incremental-alter-configs.ts';
import type { RequestOf } from '../../protocol/schema.ts';
import { parseConfigValue } from '../../storage/config-value.ts';
import { topicConfigSpec } from '../../storage/topic-config-table.ts';
import { type TopicConfig, TopicError } from '../../storage/topics.ts';
import { alterTopic, malformedIn, notAlterable, resource } from '../config-resources.ts';
import type { BrokerContext } from '../context.ts';
import { handler } from '../handler.ts';
import { failed, type Outcome } from '../topic-failure.ts';

type Resource = RequestOf<typeof IncrementalAlterConfigs>['resources'][number];
const operation = { set: 0, delete: 1, append: 2, subtract: 3 } as const;

export const incrementalAlterConfigs = handler(
  IncrementalAlterConfigs,
  async ({ resources, validateOnly }, { broker }) => {
    const responses = [];
    const malformed = malformedIn(resources);
    for (const altered of resources) {
      const { resourceType, resourceName } = altered;
      const problem = malformed(altered) ?? malformedOperation(altered);
      const outcome: Outcome =
        problem !== undefined
          ? failed(ErrorCode.INVALID_REQUEST, problem)
          : resourceType === resource.topic
            ? await alterTopic(resourceName, overrides => apply(overrides, altered, broker), validateOnly, broker)
            : notAlterable(altered, broker);
      responses.push({ ...outcome, resourceType, resourceName });
    }
    return { responses };
  },
);

function malformedOperation({ configs }: Resource): string | undefined {
  for (const { name, value, configOperation } of configs) {
    if (configOperation < operation.set || configOperation > operation.subtract) {
      return `unknown operation ${configOperation} on ${name}`;
    }
    if (value === null && configOperation !== operation.delete) return `${name} has no value`;
  }
  return undefined;
}

function apply(overrides: TopicConfig, { configs }: Resource, broker: BrokerContext): TopicConfig {
  const next = new Map(Object.entries(overrides));
  for (const { name, value, configOperation } of configs) {
    if (configOperation === operation.delete) {
      next.delete(name);
    } else if (configOperation === operation.set) {
      next.set(name, value!);
    } else {
      const entries = new Set(listOf(name, next.get(name), broker));
      for (const given of value!.split(',').map(entry => entry.trim())) {
        if (configOperation === operation.append) entries.add(given);
        else entries.delete(given);
      }
      next.set(name, [...entries].join(','));
    }
  }
  return Object.fromEntries(next);
}

/** A list's entries: of the override, or where there is none, of what is in force without it. */
function listOf(name: string, override: string | undefined, broker: BrokerContext): readonly string[] {
  const spec = topicConfigSpec(name);
  if (spec === undefined || spec.type !== 'list') {
    throw new TopicError(
      ErrorCode.INVALID_CONFIG,
      `${name} is not a list: it can be set, not appended to or subtracted from`,
    );
  }
  const inherited = spec.server === null ? undefined : broker.serverDefaults.get(spec.server)?.value;
  return parseConfigValue(spec, override ?? inherited ?? spec.default) as readonly string[];
}
