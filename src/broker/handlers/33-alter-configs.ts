// AlterConfigs, versions 0 to 2: replaces all of a topic's overrides; those not named go back to their defaults.
// Kafka keeps it for older clients beside IncrementalAlterConfigs.
// Differs from Kafka: only topics can be altered; broker configs are settings and read-only.
import { ErrorCode } from '../../protocol/errors.ts';
import { AlterConfigs } from '../../protocol/messages/33-alter-configs.ts';
import { alterTopic, malformedIn, notAlterable, resource } from '../config-resources.ts';
import { handler } from '../handler.ts';
import { failed, type Outcome } from '../topic-failure.ts';

export const alterConfigs = handler(AlterConfigs, async ({ resources, validateOnly }, { broker }) => {
  const responses = [];
  const malformed = malformedIn(resources);
  for (const altered of resources) {
    const { resourceType, resourceName, configs } = altered;
    const empty = configs.find(({ value }) => value === null);
    const problem = malformed(altered) ?? (empty && `${empty.name} has no value`);
    const overrides = () => Object.fromEntries(configs.map(({ name, value }) => [name, value!]));
    const outcome: Outcome =
      problem !== undefined
        ? failed(ErrorCode.INVALID_REQUEST, problem)
        : resourceType === resource.topic
          ? await alterTopic(resourceName, overrides, validateOnly, broker)
          : notAlterable(altered, broker);
    responses.push({ ...outcome, resourceType, resourceName });
  }
  return { responses };
});
