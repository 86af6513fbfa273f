// Which partition a key goes to: what Kafka's own producers do (murmur2 of the key), so that a captured topic can be
// joined with one that they write. Records without a key keep their order in partition 0.

export function partitionOf(key: Buffer | null, start: number, end: number, partitions: number): number {
  if (key === null || partitions === 1) return 0;
  return (murmur2(key, start, end) & 0x7fff_ffff) % partitions;
}

/** Austin Appleby's MurmurHash2, 32 bits, with Kafka's seed. */
export function murmur2(bytes: Buffer, start: number, end: number): number {
  const multiplier = 0x5bd1_e995;
  let hash = 0x9747_b28c ^ (end - start);
  let at = start;
  for (; end - at >= 4; at += 4) {
    let word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    word = Math.imul(word, multiplier);
    word ^= word >>> 24;
    hash = Math.imul(hash, multiplier) ^ Math.imul(word, multiplier);
  }
  const left = end - at;
  if (left >= 3) hash ^= bytes[at + 2]! << 16;
  if (left >= 2) hash ^= bytes[at + 1]! << 8;
  if (left >= 1) hash = Math.imul(hash ^ bytes[at]!, multiplier);
  hash = Math.imul(hash ^ (hash >>> 13), multiplier);
  return hash ^ (hash >>> 15);
}
