// Random choices that a seed repeats (mulberry32).
export interface Random {
  /** An integer from 0 up to, not including, `bound`. */
  below(bound: number): number;
  pick<T>(from: readonly T[]): T;
  bytes(count: number): Buffer;
}

export function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const below = (bound: number) => Math.floor((next() / 2 ** 32) * bound);
  return {
    below,
    pick: from => from[below(from.length)]!,
    bytes: count => Buffer.from(Array.from({ length: count }, () => below(256))),
  };
}

export const newSeed = (): number => Math.floor(Math.random() * 2 ** 32);
