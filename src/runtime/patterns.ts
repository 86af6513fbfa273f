// Names of topics by patterns, in which * stands for any characters; and names made of what the stars stood for.

/** What the stars of the first pattern that fits stand for; undefined where none fits. */
export function matchTopic(patterns: readonly string[], topic: string): string[] | undefined {
  for (const pattern of patterns) {
    const escaped = pattern.replaceAll(/[\\^$.|?+()[\]{}]/g, '\\$&').replaceAll('*', '(.*)');
    const found = new RegExp(`^${escaped}$`, 's').exec(topic);
    if (found) return found.slice(1);
  }
  return undefined;
}

/** `template` with {topic} and {1}, {2}, … filled in: the topic's name, and what the stars of its pattern stood for. */
export function fillName(template: string, topic: string, stars: readonly string[]): string {
  return template.replaceAll(/\{(topic|\d+)\}/g, (_, name: string) =>
    name === 'topic' ? topic : (stars[Number(name) - 1] ?? ''),
  );
}
