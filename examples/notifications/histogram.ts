// Latencies in buckets that grow by 2 %, from 0.1 ms on: quantiles as good as that, in a bounded array that processes can
// send each other.
const leastMs = 0.1;
const growth = Math.log(1.02);
const bucketCount = 700; // up to 100 s

export class Histogram {
  readonly buckets: number[];
  count = 0;

  constructor(buckets: readonly number[] = new Array<number>(bucketCount).fill(0)) {
    this.buckets = [...buckets];
    for (const count of buckets) this.count += count;
  }

  add(ms: number): void {
    const bucket = ms <= leastMs ? 0 : Math.min(bucketCount - 1, Math.ceil(Math.log(ms / leastMs) / growth));
    this.buckets[bucket]!++;
    this.count++;
  }

  merge(other: Histogram): void {
    for (let i = 0; i < bucketCount; i++) this.buckets[i]! += other.buckets[i]!;
    this.count += other.count;
  }

  /** The upper bound of the bucket that holds it, ms; NaN where there is nothing. */
  quantile(share: number): number {
    let left = Math.ceil(this.count * share);
    for (let i = 0; i < bucketCount; i++) {
      left -= this.buckets[i]!;
      if (left <= 0) return this.count === 0 ? Number.NaN : leastMs * Math.exp(i * growth);
    }
    return Number.NaN;
  }
}
