// What the three config APIs share: resource types and sources as the wire numbers them, and changing a topic's
// overrides. Broker configs are the settings (runtime/settings.ts): read at start, told here, never changed.
import { ErrorCode } from '../protocol/errors.ts';
import { overridesProblem } from '../storage/topic-config.ts';
import { topicNameProblem } from '../storage/topic-name.ts';
import { type TopicConfig, TopicError } from '../storage/topics.ts';
import type { BrokerContext } from './context.ts';
import { repeatedIn } from './repeated.ts';
import { failed, type Outcome, succeeded, topicFailure } from './topic-failure.ts';

export const resource = { topic: 2, broker: 4, brokerLogger: 8, clientMetrics: 16, group: 32 } as const;

/** ConfigSource: a topic's own, the broker's settings, the default. */
export const configSource = { topic: 1, static: 4, default: 5 } as const;

export const configType = { boolean: 1, string: 2, int: 3, long: 5, double: 6, list: 7 } as const;

export interface ResourceName {
  readonly resourceType: number;
  readonly resourceName: string;
}

/** Says why a resource's part of the request cannot be obeyed, whatever its type; the same for both ways of altering. */
export function malformedIn(
  all: readonly ResourceName[],
): (altered: ResourceName & { readonly configs: readonly { readonly name: string }[] }) => string | undefined {
  const repeated = repeatedIn(all, resourceKey);
  return altered => {
    if (repeated.has(resourceKey(altered))) return 'a resource may be named only once in a request';
    const [twice] = repeatedIn(altered.configs, ({ name }) => name);
    return twice === undefined ? undefined : `${twice} is given twice`;
  };
}

export function resourceKey({ resourceType, resourceName }: ResourceName): string {
  return `${resourceType} ${resourceName}`;
}

/** The answer for whatever is not a topic. */
export function notAlterable({ resourceType, resourceName }: ResourceName, broker: BrokerContext): Outcome {
  const refuse = (message: string) => failed(ErrorCode.INVALID_REQUEST, message);
  switch (resourceType) {
    case resource.broker:
      return resourceName === '' || resourceName === String(broker.nodeId)
        ? refuse('broker configs are settings of Millrace, read at start: change them there and restart it')
        : refuse(`this is broker ${broker.nodeId}, not ${resourceName}`);
    case resource.brokerLogger:
      return refuse('log levels are set by log.level, a setting of Millrace that is read at start');
    case resource.clientMetrics:
      return refuse('client metrics are not served');
    case resource.group:
      return refuse('groups have no configs of their own');
    default:
      return refuse(`unknown resource type ${resourceType}`);
  }
}

/** `change` makes the new overrides of those in force; it may throw a TopicError. */
export async function alterTopic(
  name: string,
  change: (overrides: TopicConfig) => TopicConfig,
  validateOnly: boolean,
  broker: BrokerContext,
): Promise<Outcome> {
  const checked = (overrides: TopicConfig) => {
    const next = change(overrides);
    const problem = overridesProblem(next, broker.serverDefaults);
    if (problem !== undefined) throw new TopicError(ErrorCode.INVALID_CONFIG, problem);
    return next;
  };
  if (name === '') return failed(ErrorCode.INVALID_REQUEST, 'topics have no defaults that could be altered');
  const nameProblem = topicNameProblem(name);
  if (nameProblem !== undefined) return failed(ErrorCode.INVALID_TOPIC_EXCEPTION, nameProblem);
  const topic = broker.topics.get(name);
  try {
    if (topic === undefined || validateOnly) checked(topic?.config ?? {});
    if (topic === undefined) return failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, `there is no topic ${name}`);
    if (!validateOnly) {
      await broker.topics.setConfig(topic, checked);
      broker.logger.info({ topic: name, config: topic.config }, 'topic configs changed');
    }
    return succeeded;
  } catch (error) {
    return topicFailure(error, name, broker.logger);
  }
}
