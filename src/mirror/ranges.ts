// The map of a partition's offsets as it grows (kafka.mirror_ranges): where records are in the target, in stretches in which
// both offsets grow together.
import type { OffsetRange } from './positions.ts';
import type { Run } from './share.ts';

export class Ranges {
  #last: OffsetRange | undefined;
  /** By source offset. */
  readonly #changed = new Map<bigint, OffsetRange>();

  constructor(last: OffsetRange | undefined) {
    this.#last = last;
  }

  /** Records of this log that are in the target from `targetOffset` on. Returns the range that they are in. */
  add({ sourceOffset, count }: Run, targetOffset: bigint): OffsetRange {
    let range = this.#last;
    if (
      range === undefined ||
      range.sourceOffset + range.records !== sourceOffset ||
      range.targetOffset + range.records !== targetOffset
    ) {
      range = { sourceOffset, targetOffset, records: 0n };
      this.#last = range;
    }
    range.records += BigInt(count);
    this.#changed.set(range.sourceOffset, range);
    return range;
  }

  /** Those that have begun or grown since the last time, as they are now. */
  take(): OffsetRange[] {
    const changed = Array.from(this.#changed.values(), range => ({ ...range }));
    this.#changed.clear();
    return changed;
  }

  /** What was taken has not been noted. */
  putBack(ranges: readonly OffsetRange[]): void {
    for (const range of ranges) {
      const { sourceOffset } = range;
      if (this.#changed.has(sourceOffset)) continue; // it has grown since
      this.#changed.set(sourceOffset, sourceOffset === this.#last?.sourceOffset ? this.#last : range);
    }
  }
}
