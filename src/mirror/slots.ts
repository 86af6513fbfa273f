/** So many at once; the others wait in turn. */
export function slots(most: number): <T>(work: () => Promise<T>) => Promise<T> {
  let taken = 0;
  const waiting: (() => void)[] = [];
  return async work => {
    while (taken >= most) await new Promise<void>(resolve => waiting.push(resolve));
    taken++;
    try {
      return await work();
    } finally {
      taken--;
      waiting.shift()?.();
    }
  };
}
