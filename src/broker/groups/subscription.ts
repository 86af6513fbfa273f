// The topics in a consumer's JoinGroup metadata (protocol type "consumer"): a version, then the subscription, of which
// every version begins with the topic names. Nothing else in it concerns the broker.

/** Null when the bytes are not a subscription. */
export function subscribedTopics(metadata: Buffer): string[] | null {
  if (metadata.length < 6) return null;
  const count = metadata.readInt32BE(2);
  let position = 6;
  if (count < 0 || count * 2 > metadata.length - position) return null;
  const topics: string[] = [];
  for (let i = 0; i < count; i++) {
    if (position + 2 > metadata.length) return null;
    const length = metadata.readInt16BE(position);
    position += 2;
    if (length < 0 || position + length > metadata.length) return null;
    topics.push(metadata.toString('utf8', position, position + length));
    position += length;
  }
  return topics;
}
