// What waits to be sent, by priority class. While all classes have something that can be sent, of every 13 begun 9 are HIGH,
// 3 MEDIUM and 1 LOW; what a class does not use the others have. And of the requests at once LOW alone gets at most three
// quarters, LOW and MEDIUM together seven eighths, so that slow receivers of the one never hold all of them.
import { classes, type Delivery } from './cursor.ts';

export type Verdict = 'start' | 'wait' | 'remove';

/** By class: LOW, MEDIUM, HIGH. */
const weights = [1, 3, 9];

export class Queue {
  readonly #waiting: Delivery[][] = Array.from({ length: classes }, () => []);
  /** Each start moves its class on by the inverse of its weight; who is least far is next. */
  readonly #passes = weights.map(() => 0);
  readonly #active = weights.map(() => 0);
  readonly #limits: readonly number[];

  constructor(atOnce: number) {
    this.#limits = [Math.max(1, Math.floor((atOnce * 3) / 4)), Math.max(1, Math.floor((atOnce * 7) / 8)), atOnce];
  }

  lengthOf(class_: number): number {
    return this.#waiting[class_]!.length;
  }

  push(delivery: Delivery): void {
    const class_ = delivery.class;
    if (this.#waiting[class_]!.length === 0) {
      // Who had nothing for a while has not saved anything up.
      const others = this.#passes.filter((_, i) => i !== class_ && this.#waiting[i]!.length > 0);
      if (others.length > 0) this.#passes[class_] = Math.max(this.#passes[class_]!, Math.min(...others));
    }
    this.#waiting[class_]!.push(delivery);
  }

  /** Takes the next that may be started. Whoever waits makes all of its subscriber's wait, so that they stay in order. */
  take(judge: (delivery: Delivery) => Verdict): Delivery | undefined {
    const order = weights.map((_, i) => i).sort((a, b) => this.#passes[a]! - this.#passes[b]! || b - a);
    for (const class_ of order) {
      if (this.#isFull(class_)) continue;
      const found = this.#takeOf(class_, judge);
      if (found === undefined) continue;
      this.#passes[class_]! += 1 / weights[class_]!;
      this.#active[class_]!++;
      return found;
    }
    return undefined;
  }

  ended(delivery: Delivery): void {
    this.#active[delivery.class]!--;
  }

  #isFull(class_: number): boolean {
    const [low = 0, medium = 0] = this.#active;
    if (class_ === 0 && low >= this.#limits[0]!) return true;
    return class_ < 2 && low + medium >= this.#limits[1]!;
  }

  #takeOf(class_: number, judge: (delivery: Delivery) => Verdict): Delivery | undefined {
    const waiting = this.#waiting[class_]!;
    const held = new Set<string>();
    let kept = 0;
    for (let i = 0; i < waiting.length; i++) {
      const delivery = waiting[i]!;
      const verdict = held.has(delivery.event.subscriber) ? 'wait' : judge(delivery);
      if (verdict === 'start') {
        waiting.splice(kept, i + 1 - kept);
        return delivery;
      }
      if (verdict === 'remove') continue;
      held.add(delivery.event.subscriber);
      waiting[kept++] = delivery;
    }
    waiting.length = kept;
    return undefined;
  }
}
