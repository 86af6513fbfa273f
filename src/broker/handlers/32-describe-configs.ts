// DescribeConfigs, versions 0 to 4: configs of topics and of this broker, with their sources, synonyms (from version
// 1), types and documentation (from version 3).
// Differs from Kafka: a resource that is named twice is answered once; broker configs are settings, all read-only; there are no broker loggers; client metrics and
// groups have no configs, so their answer is empty.
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeConfigs } from '../../protocol/messages/32-describe-configs.ts';
import type { RequestOf } from '../../protocol/schema.ts';
import { type TopicConfigEntry, topicConfigEntries } from '../../storage/topic-config.ts';
import { topicNameProblem } from '../../storage/topic-name.ts';
import { type BrokerConfigEntry, brokerConfigEntries } from '../broker-config.ts';
import { configSource, configType, resource, resourceKey } from '../config-resources.ts';
import type { BrokerContext } from '../context.ts';
import { handler } from '../handler.ts';
import { failed, type Outcome } from '../topic-failure.ts';

type Request = RequestOf<typeof DescribeConfigs>;
type Described = ReturnType<typeof topicEntry>;

export const describeConfigs = handler(DescribeConfigs, (request, { broker }) => ({
  // Once each: a request that names a resource a million times must not be answered a million times.
  results: [...new Map(request.resources.map(each => [resourceKey(each), each])).values()].map(each => {
    const { resourceType, resourceName, configurationKeys } = each;
    const described = describe(resourceType, resourceName, broker);
    const names = configurationKeys?.length ? new Set(configurationKeys) : undefined;
    const [configs, outcome] = Array.isArray(described) ? [described, undefined] : [[], described];
    return {
      errorCode: ErrorCode.NONE,
      ...outcome,
      resourceType,
      resourceName,
      configs: configs.filter(({ name }) => names?.has(name) ?? true).map(config => asked(config, request)),
    };
  }),
}));

/** Without what the request did not ask for. */
function asked(config: Described, { includeSynonyms, includeDocumentation }: Request): Described {
  return {
    ...config,
    synonyms: includeSynonyms ? config.synonyms : [],
    documentation: includeDocumentation ? config.documentation : null,
  };
}

function describe(resourceType: number, name: string, broker: BrokerContext): Described[] | Outcome {
  const refuse = (message: string) => failed(ErrorCode.INVALID_REQUEST, message);
  switch (resourceType) {
    case resource.topic: {
      const problem = topicNameProblem(name);
      if (problem !== undefined) return failed(ErrorCode.INVALID_TOPIC_EXCEPTION, problem);
      const topic = broker.topics.get(name);
      if (topic === undefined) return failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, `there is no topic ${name}`);
      return topicConfigEntries(topic.config, broker.serverDefaults).map(topicEntry);
    }
    case resource.broker:
      // The empty name asks for what has been set for all brokers together while they ran: nothing here.
      if (name === '') return [];
      return name === String(broker.nodeId)
        ? brokerConfigEntries(broker).map(brokerEntry)
        : refuse(`this is broker ${broker.nodeId}, not ${name}`);
    case resource.brokerLogger:
      return refuse('there are no broker loggers; the setting log.level is the level of all logs');
    case resource.clientMetrics:
    case resource.group:
      return name === '' ? refuse('the resource needs a name') : [];
    default:
      return refuse(`unknown resource type ${resourceType}`);
  }
}

function topicEntry({ spec, value, source, synonyms }: TopicConfigEntry) {
  return {
    name: spec.name,
    value,
    readOnly: false,
    isDefault: source !== 'topic',
    configSource: configSource[source] as number,
    isSensitive: false,
    synonyms: synonyms.map(synonym => ({ ...synonym, source: configSource[synonym.source] as number })),
    configType: configType[spec.type] as number,
    documentation: (spec.ignored ? `${spec.doc} Kept and told, but without effect here.` : spec.doc) as string | null,
  };
}

function brokerEntry({ name, value, type, default: ours, doc }: BrokerConfigEntry): Described {
  const fallback = { name, value: ours, source: configSource.default };
  const isDefault = value === ours;
  return {
    name,
    value,
    readOnly: true,
    isDefault,
    configSource: isDefault ? configSource.default : configSource.static,
    isSensitive: false,
    synonyms: isDefault ? [fallback] : [{ name, value, source: configSource.static }, fallback],
    configType: configType[type],
    documentation: doc,
  };
}
