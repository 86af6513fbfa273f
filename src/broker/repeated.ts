/** The keys that occur more than once. Linear: a request may hold millions of names. */
export function repeatedIn<T, K>(items: Iterable<T>, keyOf: (item: T) => K): Set<K> {
  const seen = new Set<K>();
  const repeated = new Set<K>();
  for (const item of items) {
    const key = keyOf(item);
    if (seen.has(key)) repeated.add(key);
    seen.add(key);
  }
  return repeated;
}
