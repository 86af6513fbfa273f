// Kafka's rules for a topic's name, which also keep it harmless in SQL, file names and metrics.

const maxLength = 249;

/** Why the name may not be used, or undefined when it may. */
export function topicNameProblem(name: string): string | undefined {
  if (name === '') return 'a topic name may not be empty';
  if (name === '.' || name === '..') return `a topic may not be called '${name}'`;
  if (name.length > maxLength)
    return `a topic name may have ${maxLength} characters at most, this one has ${name.length}`;
  if (!/^[a-zA-Z0-9._-]+$/.test(name))
    return 'a topic name may hold only ASCII letters and digits, period, underscore and hyphen';
  return undefined;
}

/** Names with the same key collide: Kafka refuses them because metrics write periods as underscores. */
export function collisionKey(name: string): string {
  return name.replaceAll('.', '_');
}
