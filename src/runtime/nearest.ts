// What somebody probably meant who wrote a name that there is not.

/** The known name that is nearest to `wrong`, as the beginning of a hint. */
export function didYouMean(wrong: string, known: readonly string[]): string {
  const normal = (value: string) => value.toLowerCase().replaceAll(/[-_.]/g, '');
  let nearest = '';
  let nearestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const distance = editDistance(normal(wrong), normal(candidate));
    if (distance < nearestDistance) {
      nearest = candidate;
      nearestDistance = distance;
    }
  }
  return `did you mean ${nearest}? `;
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
